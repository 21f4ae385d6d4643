"""A copy of the source in which mutants are made, and the tests run on it."""

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("src", "tests", "benchmarks", "model_catalog", "pyproject.toml", "README.md")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".pytest_cache")
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest: anything else means that no test has judged."""


class NoJudgementError(Exception):
    """Tests that could not be run: they are not there, or broke before they began. The message has what pytest said."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """The copy."""

    folder: Path

    def passes(self, *tests: str) -> bool:
        """Whether all of these tests pass on the copy as it is now. Raises NoJudgementError."""
        command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(  # noqa: S603 - the command is ours, without a shell
            command,
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode not in (_PASSED, _FAILED) or " error" in done.stdout.splitlines()[-1]:
            raise NoJudgementError(done.stdout[-2000:])
        return done.returncode == _PASSED

    def kills(self, mutant: Mutant) -> bool:
        """Whether the mutant's test fails on it. The copy is as it was afterwards."""
        path = self.folder / "src" / "tallybook" / mutant.file
        before = path.read_text()
        path.write_text(mutated(mutant, before))
        try:
            return not self.passes(mutant.test)
        finally:
            path.write_text(before)

    def _environment(self) -> dict[str, str]:
        """No process of the tests leaves bytecode: a mutant may be as long as what it replaces, and as old to the second."""
        path = f"{self.folder / 'src'}{os.pathsep}{self.folder}"
        return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def furnish(folder: Path) -> Workshop:
    """Copy the source into an empty folder."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, folder / name)
    return Workshop(folder)


def mutated(mutant: Mutant, source: str) -> str:
    """The source with the mutant in it. Raises ValueError unless its text is there exactly once."""
    count = source.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: its text is {count} times in {mutant.file}; adapt tests/mutants/catalog.py")
    return source.replace(mutant.old, mutant.new)


def why_unfit(mutant: Mutant) -> str | None:
    """What is wrong with a mutant: its text moved, it leaves no program, or its test is not there."""
    try:
        source = mutated(mutant, (ROOT / "src" / "tallybook" / mutant.file).read_text())
        if mutant.file.endswith(".py"):
            ast.parse(source)
    except (OSError, ValueError, SyntaxError) as error:
        return str(error)
    file, _, test = mutant.test.partition("::")
    tree = ast.parse((ROOT / file).read_text()) if (ROOT / file).is_file() else ast.Module([], [])
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    return None if test in names else f"{mutant.name}: there is no test {mutant.test}"

"""The client installed by itself, in an environment of its own, brings no dependency of the service."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPECTED = {
    "anyio",
    "certifi",
    "h11",
    "httpcore",
    "httpx",
    "idna",
    "sniffio",
    "tallybook",
    "typing_extensions",
    "typing-extensions",
}
OF_THE_SERVICE = (
    "aiohttp",
    "asyncpg",
    "redis",
    "msgspec",
    "polars",
    "orjson",
    "uvloop",
    "msgpack",
    "hiredis",
    "prometheus_client",
)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], check=False, capture_output=True, text=True)  # noqa: S603 - own commands
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a package is built from, apart from everything else that lies in the folder."""
    folder = tmp_path / "source"
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "model_catalog", folder / "model_catalog")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    readme = ROOT / "README.md"
    shutil.copy(readme if readme.exists() else ROOT / "src/tallybook/client/README.md", folder / "README.md")
    return folder


def test_the_client_alone_needs_httpx_and_nothing_of_the_service(source: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    wanted = [*map(str, pip), "download", "--no-deps", "--dest", str(tmp_path), "hatchling"]
    reachable = subprocess.run(wanted, check=False, capture_output=True)  # noqa: S603 - own commands
    if reachable.returncode != 0:
        pytest.skip("no package index can be reached, so nothing can be installed")
    run(*pip, "install", "--quiet", source)
    installed = {package["name"].lower() for package in json.loads(run(*pip, "list", "--format", "json"))} - {"pip", "setuptools"}
    assert installed <= EXPECTED
    assert {"httpx", "tallybook"} <= installed
    run(
        python,
        "-c",
        "from tallybook.client import AsyncTallybook, Tallybook, tracked; Tallybook('ck_x', url='http://127.0.0.1:9').close(0)",
    )
    told = subprocess.run([tmp_path / "venv/bin/tallybook", "dev"], check=False, capture_output=True, text=True)  # noqa: S603 - own command
    assert told.returncode == 2
    assert "'tallybook[server,embedded]'" in told.stderr
    assert "Traceback" not in told.stderr
    for name in OF_THE_SERVICE:
        run(python, "-c", f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is not None)")

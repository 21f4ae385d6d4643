"""Runs schemathesis over the description of a started service, in a process of its own, and reads what it found."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.api.furnishing import Known
from tests.support.service import PLAIN_VERSION, Account

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one run found. `failures` says what and where; `text` is all that schemathesis told."""

    cases: int
    operations: int
    server_errors: int
    failures: Sequence[str]
    text: str

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self.failures


def check(account: Account, known: Known, folder: Path, *, phases: Sequence[str], examples: int, seed: int) -> Verdict:
    """Try every operation with a key of its own, `examples` generated requests each beside those of the phases."""
    made = account.done("POST", "/api-keys", {"name": f"contract {uuid.uuid4()}"})
    names = folder / "known.json"
    names.write_text(json.dumps(known), encoding="utf-8")
    environment = {"TALLYBOOK_KNOWN": str(names), "TALLYBOOK_OWN_KEY": made["id"], "SCHEMATHESIS_HOOKS": "tests.api.hooks"}
    return run(
        f"{account.service.url}/api/v1/openapi.json",
        folder,
        ["--phases", ",".join(phases), "--max-examples", str(examples), "--seed", str(seed)],
        headers={"x-api-key": made["apiKey"], "commet-version": PLAIN_VERSION},
        environment=environment,
    )


def run(
    url: str,
    folder: Path,
    words: Sequence[str],
    *,
    headers: Mapping[str, str],
    environment: Mapping[str, str],
) -> Verdict:
    """One run of the command, in `folder`. Raises AssertionError when it did not get to its end."""
    report = folder / "report.json"
    told = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    fixed = ["--no-color", "--continue-on-failure", "--generation-database", "none"]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "contract.toml")),
        *("run", url, *fixed, *told, *words, "--report-json-path", str(report)),
    ]
    paths = os.pathsep.join([str(HERE.parent.parent / "src"), str(HERE.parent.parent)])
    done = subprocess.run(  # noqa: S603 - the command is ours, without a shell
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    text = done.stdout + done.stderr
    assert report.exists(), text
    return _verdict(json.loads(report.read_text(encoding="utf-8")), text)


def _verdict(found: Mapping[str, Any], text: str) -> Verdict:
    assert found["stop_reason"] == "completed", text
    assert not found["errors"], text
    failures = [f"{one['title']}: {where}" for one in found["failures"] for where in one["operations"]]
    server_errors = sum(one["count"] for one in found["failures"] if one["type"] == "ServerError")
    return Verdict(found["test_cases"]["generated"], found["operations"]["tested"], server_errors, failures, text)

"""The folder in which processes of one service keep their metrics, so that any of them can answer a scrape for all.

Does not import the Prometheus library: that one reads its environment when it is imported, which must be after `prepare`.
"""

import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(folder: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Empty the folder and name it in the environment that children inherit. Call it once, before any of them starts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment[FOLDER_VARIABLE] = str(folder)


def forget_dead(folder: Path) -> None:
    """Drop the gauges of processes that have ended; what they counted stays."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _lives(int(pid)):
            file.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

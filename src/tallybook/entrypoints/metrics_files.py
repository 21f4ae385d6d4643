"""The folder in which processes of one service keep their metrics, so that any of them can answer a scrape for all.

Does not import the Prometheus library: that one reads its environment when it is imported, which must be after `prepare`.
"""

import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def prepare(folder: Path, environment: MutableMapping[str, str] = os.environ) -> None:
    """Empty the folder and name it in the environment that children inherit. Call it once, before any process of the service starts."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment[FOLDER_VARIABLE] = str(folder)


def forget_process(pid: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Drop the gauges of a process that has ended; what it counted stays."""
    folder = environment.get(FOLDER_VARIABLE)
    if not folder:
        return
    for file in Path(folder).glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)

"""Numbers of one process, and of several that share a folder."""

import os
import subprocess
import sys
from pathlib import Path

from tallybook.core import errors
from tallybook.entrypoints import metrics, metrics_files

_CHILD = """
from tallybook.entrypoints import metrics
metrics.observe_till_call(3, 0.002)
metrics.TILL_QUEUE_DEPTH.set(5)
"""


def test_a_refused_event_is_counted_by_its_code() -> None:
    problems = [
        errors.BillingError("insufficient_credits", "x"),
        errors.invalid("value", "x"),
        errors.Unavailable("till_unavailable", "x"),
    ]
    counted = [("refused", "insufficient_credits"), ("invalid", "validation_error"), ("retry", "till_unavailable")]
    before = [_count(result, reason) for result, reason in counted]
    metrics.count_usage(problems)
    assert [_count(result, reason) for result, reason in counted] == [count + 1 for count in before]


def _count(result: str, reason: str) -> float:
    labels = {"result": result, "reason": reason}
    return metrics.REGISTRY.get_sample_value("tallybook_usage_events_total", labels) or 0.0


def test_any_process_answers_for_all_and_the_gauges_of_the_dead_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    environment = dict(os.environ)
    metrics_files.prepare(folder, environment)
    source = Path(metrics.__file__).parents[2]
    for _ in range(2):
        words = [sys.executable, "-c", _CHILD]
        subprocess.run(words, check=True, env=environment | {"PYTHONPATH": str(source)})  # noqa: S603 - this very interpreter
    text = metrics.exposition(environment).decode()
    assert "tallybook_till_charges_total 6.0" in text
    assert "tallybook_till_queue_depth 0.0" in text or "tallybook_till_queue_depth" not in text


def test_preparing_empties_the_folder_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "counter_1.db").touch()
    environment: dict[str, str] = {}
    metrics_files.prepare(tmp_path / "m", environment)
    assert list((tmp_path / "m").iterdir()) == []
    assert environment == {metrics_files.FOLDER_VARIABLE: str(tmp_path / "m")}

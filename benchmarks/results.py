"""A run as JSON, with the published keys on top, and as a table for people."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from benchmarks.run import Found

Json = dict[str, Any]


def as_json(found: Found, *, seconds: float) -> Json:
    """Everything; the keys on top are those that other runs are compared by. A figure that was not asked for is not there."""
    every: Json = msgspec.to_builtins({"workloads": found.workloads, "ceilings": found.ceilings})
    top = {name: value for name, value in _top(every["workloads"], every["ceilings"]) if value is not None}
    verdict = {"reconciled": found.reconciled, "void": found.void}
    return {**found.about, **top, **found.more, **verdict, "ratios": dict(_ratios(top)), "run_s": seconds, **every}


def _top(workloads: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "noop_single_rps", _at(ceilings, "bare_http_single", "eps")
    yield "noop_single_p99_ms", _at(ceilings, "bare_http_single", "p99_ms")
    for key, name in (("rps", "eps"), ("p50_ms", "p50_ms"), ("p99_ms", "p99_ms"), ("p999_ms", "p999_ms")):
        yield f"single_{key}", _at(workloads, "single", "end_to_end", name)
    yield "noop_batch_eps", _at(ceilings, "bare_http_batch", "eps")
    yield "bare_script_eps", _at(ceilings, "bare_script", "eps")
    yield "bare_copy_eps", _at(ceilings, "bare_copy", "eps")
    yield "batch_eps", _at(workloads, "W2", "acknowledged", "eps")
    yield "batch_p99_ms", _at(workloads, "W2", "acknowledged", "p99_ms")
    yield "e2e_eps", _at(workloads, "W2", "end_to_end", "eps")
    yield "rollup_lag_s", _at(workloads, "W2", "end_to_end", "lag_max_s")
    yield "hot_customer_eps", _at(workloads, "W4", "end_to_end", "eps")
    yield "realistic_eps", _at(workloads, "W1", "end_to_end", "eps")
    yield "gate_rps", _at(workloads, "W3", "end_to_end", "requests_per_s")
    for key, name in (("report", "customer_month_by_model_and_day"), ("report_all", "all_by_model")):
        for measure in ("ms", "min_ms", "max_ms"):
            yield f"{key}_{measure}", _at(workloads, "reports", "run", "reports", name, measure)
    yield "report_all_alike_ms", _at(workloads, "reports", "run", "reports", "all_by_model_alike", "ms")
    for name in ("events_in_book", "hourly_totals", "hourly_totals_alike"):
        yield f"report_{name}", _at(workloads, "reports", "run", name)
    for form in ("parquet", "parquet_tenth", "csv", "csv_tenth"):
        for name in ("rows", "seconds", "peak_rss_mb", "file_mb"):
            yield f"export_{form}_{name}", _at(workloads, "export", "run", "files", form, name)
    for name in ("events_in_book", "customers", "invoices", "close_s"):
        yield f"close_{name}", _at(workloads, "close", "run", name)


def _at(tree: Mapping[str, Any], *path: str) -> Any:  # noqa: ANN401 - a number or nothing
    here: Any = tree
    for name in path:
        if name not in here:
            return None
        here = here[name]
    return here


_RATIOS = (
    ("single / bare HTTP", "single_rps", "noop_single_rps"),
    ("single p99 / bare HTTP p99", "single_p99_ms", "noop_single_p99_ms"),
    ("batch acknowledged / bare HTTP", "batch_eps", "noop_batch_eps"),
    ("batch acknowledged / bare script", "batch_eps", "bare_script_eps"),
    ("end to end / bare COPY", "e2e_eps", "bare_copy_eps"),
    ("hot customer / batch", "hot_customer_eps", "e2e_eps"),
)


def _ratios(top: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, part, whole in _RATIOS:
        if part in top and whole in top:
            yield name, top[part] / top[whole]


def as_text(made: Json) -> str:
    """The figures in columns, then the verdict."""
    lines = [*_phase_lines(made), *(f"{name:34}{value:14,.2f}" for name, value in _numbers(made))]
    lines += _flat_lines(_at(made["workloads"], "flat", "run") or {})
    others = max((phase["others_cores"] for _, phase in _phases(made)), default=0.0)
    if others > _OTHERS_MAX:
        lines.append(f"Other programs used up to {others:.1f} cores meanwhile: these figures are too low.")
    lines += _at(made["workloads"], "close", "run", "manifest") or []
    return "\n".join([*lines, *_verdict(made)])


_OTHERS_MAX = 0.1


def _flat_lines(run: Json) -> Iterator[str]:
    for step in (*run.get("by_customers", ()), *run.get("by_events", ())):
        cpu = " ".join(f"{role} {spent:.1f}" for role, spent in step["by_role"].items())
        yield f"{step['customers']:>11,} customers {step['stored']:>13,} events{step['us']:9.1f} us an event: {cpu}"
    if run.get("skipped"):
        yield f"The disk has no room for {', '.join(f'{count:,}' for count in run['skipped'])} events."


def _verdict(made: Json) -> Iterator[str]:
    if made["reconciled"]:
        yield "reconciled: everything that was acknowledged is in the book once, and every sum agrees"
    else:
        yield "VOID: this run does not reconcile"
        yield from made["void"]


def _numbers(made: Json) -> Iterator[tuple[str, float]]:
    flat = {**made, **{f"{name} (ratio)": value for name, value in made["ratios"].items()}}
    flat |= {f"stage {name} (us/event)": value for name, value in made["workloads"].get("stages", {}).items()}
    for name, value in flat.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value


def _phases(made: Json) -> Iterator[tuple[str, Json]]:
    for group in ("workloads", "ceilings"):
        for name, found in made[group].items():
            nested = {name: found} if "p99_ms" in found else {f"{name} {phase}": inner for phase, inner in found.items()}
            yield from ((full, phase) for full, phase in nested.items() if isinstance(phase, dict) and "p99_ms" in phase)


def _phase_lines(made: Json) -> Iterator[str]:
    phases = list(_phases(made))
    if phases:
        yield f"{'':22}{'events/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'p99.9':>9}{'lag s':>7}  CPU us an event by process"
    for name, phase in phases:
        cpu = " ".join(f"{role} {spent:.1f}" for role, spent in phase["cpu_s_per_million"].items())
        times = "".join(f"{phase[key]:9.1f}" for key in ("p50_ms", "p99_ms", "p999_ms"))
        yield f"{name:22}{phase['eps']:11,.0f}{times}{phase['lag_max_s']:7.1f}  {cpu}"

"""What Prometheus can ask. The only module that knows Prometheus; lower layers are handed functions.

Several API processes share one port (SO_REUSEPORT), so a scrape reaches any one of them. With PROMETHEUS_MULTIPROC_DIR set
(`metrics_files.prepare` does that before processes start) all of them, and the workers, keep their numbers in files of that
folder, and whoever is asked answers for all. The other way, a port of its own for each process, would need the scraper to know
how many there are.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from tallybook.charge.commands import Outcome
from tallybook.core import errors
from tallybook.entrypoints import metrics_files
from tallybook.flows import usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BROKEN = 500
"""From this status on the fault is not the caller's."""
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

REGISTRY = CollectorRegistry()
USAGE_EVENTS = Counter(
    "tallybook_usage_events_total",
    "Usage events by what became of them: accepted, duplicate, conflict, refused, invalid or retry; the last four with a code.",
    ["result", "reason"],
    registry=REGISTRY,
)
TILL_QUEUE_DEPTH = Gauge(
    "tallybook_till_queue_depth",
    "Charges that wait for the till or are in flight.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
TILL_CALL_SECONDS = Histogram(
    "tallybook_till_call_seconds", "How long a call of the till took.", buckets=_SECONDS, registry=REGISTRY
)
TILL_CALL_CHARGES = Counter("tallybook_till_charges_total", "Charges that calls of the till carried.", registry=REGISTRY)
ROLLUP_LAG_SECONDS = Gauge(
    "tallybook_rollup_lag_seconds",
    "Age of the oldest accepted entry that is not in the book yet.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
POOLS_FROZEN = Gauge(
    "tallybook_pools_frozen",
    "Customers whose pools did not reconcile and take no charges.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
RECONCILE_PROBLEMS = Gauge(
    "tallybook_reconcile_problems",
    "What differed in the last finished round of reconciliation: sums and pools. Anything but 0: page somebody.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
RECONCILED_AT = Gauge(
    "tallybook_reconciled_timestamp_seconds",
    "When the last round of reconciliation was finished.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
TILL_REFUSED = Gauge(
    "tallybook_till_refused",
    "1 while Redis does not hold this installation's whole till, and usage is refused: page somebody.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
TILL_MEMORY = Gauge(
    "tallybook_till_memory_bytes",
    "What Redis uses, and may use; a limit of 0 means that it has none.",
    ["kind"],
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
USAGE_TURNED_AWAY = Gauge(
    "tallybook_usage_turned_away",
    "1 while usage is turned away because the till is full or the book too far behind.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
LOG_GAPS = Counter(
    "tallybook_log_gaps_total",
    "Looks at a partition whose log lacks an entry that the book has not read: page somebody.",
    registry=REGISTRY,
)
CATALOG_VERSION = Gauge(
    "tallybook_catalog_version",
    "The version of the AI model catalog in the book.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CATALOG_SYNC_AGE_SECONDS = Gauge(
    "tallybook_catalog_sync_age_seconds",
    "How long ago the last good sync of the catalog began; infinite before the first one.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CATALOG_SYNC_STATUS = Gauge(
    "tallybook_catalog_sync_status",
    "How the last sync of the catalog ended: 1 for its status, 0 for the others.",
    ["status"],
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CATALOG_MODELS = Gauge(
    "tallybook_catalog_models",
    "Models of the last list that was read, priced and unpriced.",
    ["pricing"],
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CATALOG_QUARANTINED = Gauge(
    "tallybook_catalog_quarantined_models",
    "Rows of the last list that was read whose prices were not taken over.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CATALOG_CHANGES = Gauge(
    "tallybook_catalog_sync_changes",
    "What the last sync of the catalog changed, by kind.",
    ["kind"],
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
REPEATS_VOIDED = Counter(
    "tallybook_repeats_voided_total",
    "Events taken back because they were counted before under the same id.",
    registry=REGISTRY,
)
REPEATS_STUCK = Gauge(
    "tallybook_repeats_stuck_customers",
    "Customers with events that were counted twice and could not be taken back by the last search.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
CLOCK_SKEW_SECONDS = Gauge(
    "tallybook_clock_skew_seconds",
    "How far apart the clocks of a process and of a store are, at least; of all processes the furthest.",
    ["store"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
WEBHOOK_ATTEMPTS = Counter(
    "tallybook_webhook_attempts_total",
    "Attempts to deliver a webhook, by what came of them: delivered or failed.",
    ["result"],
    registry=REGISTRY,
)
WEBHOOK_ENDPOINTS_DISABLED = Counter(
    "tallybook_webhook_endpoints_disabled_total",
    "Endpoints that were switched off because too many events in a row could not be delivered.",
    registry=REGISTRY,
)
WEBHOOKS_WAITING = Gauge(
    "tallybook_webhooks_waiting",
    "Deliveries that wait for their first or next attempt.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
OUTBOX_LAG_SECONDS = Gauge(
    "tallybook_outbox_lag_seconds",
    "For how long the oldest announcement has waited to become deliveries.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
HTTP_REQUESTS = Counter(
    "tallybook_http_requests_total", "Requests by operation and status.", ["operation", "status"], registry=REGISTRY
)
CONNECTIONS_REFUSED = Counter(
    "tallybook_http_connections_refused_total", "Connections that were more than a process takes.", registry=REGISTRY
)
HTTP_ERRORS = Counter(
    "tallybook_http_errors_total", "Errors answered, by operation and code.", ["operation", "code"], registry=REGISTRY
)
HTTP_SECONDS = Histogram(
    "tallybook_http_request_seconds",
    "How long requests took, by operation; the usage path is measured by the till's calls.",
    ["operation"],
    buckets=_SECONDS,
    registry=REGISTRY,
)

_ACCEPTED = Outcome.ACCEPTED
_usage: dict[tuple[str, str], Counter] = {}
_requests: dict[tuple[str, int], Counter] = {}


def count_usage(results: Iterable[usage.Result]) -> None:
    """Count what became of usage events. Only an event that this request recorded is `accepted`; a replay is a `duplicate`."""
    accepted = 0
    for result in results:
        if isinstance(result, usage.Settled) and result.receipt.outcome is _ACCEPTED and not result.repeated:
            accepted += 1
        else:
            _usage_counter(*_not_accepted(result)).inc()
    if accepted:
        _usage_counter("accepted", "").inc(accepted)


def _not_accepted(result: usage.Result) -> tuple[str, str]:
    problem = result if isinstance(result, errors.TallybookError) else usage.refusal(result)
    return ("duplicate", "") if problem is None else (_failed(problem), problem.code)


def _failed(problem: errors.TallybookError) -> str:
    if isinstance(problem, errors.BillingError):
        return "refused"
    if isinstance(problem, errors.Conflict):
        return "conflict"
    return "retry" if isinstance(problem, errors.Unavailable | errors.RateLimited) or problem.status >= _BROKEN else "invalid"


def _usage_counter(result: str, reason: str) -> Counter:
    counter = _usage.get((result, reason))
    if counter is None:
        counter = _usage[result, reason] = USAGE_EVENTS.labels(result, reason)
    return counter


def observe_till_call(charges: int, seconds: float) -> None:
    """Count one call of the till."""
    TILL_CALL_SECONDS.observe(seconds)
    TILL_CALL_CHARGES.inc(charges)


def count_error(operation: str, code: str) -> None:
    """Count one request that was answered with an error, by the error's code."""
    HTTP_ERRORS.labels(operation, code).inc()


def count_request(operation: str, status: int) -> None:
    """Count one answered request."""
    counter = _requests.get((operation, status))
    if counter is None:
        counter = _requests[operation, status] = HTTP_REQUESTS.labels(operation, str(status))
    counter.inc()


def exposition(environment: Mapping[str, str] = os.environ) -> bytes:
    """The text a scrape gets: of all processes when they share a folder, else of this one."""
    folder = environment.get(metrics_files.FOLDER_VARIABLE)
    if not folder:
        return generate_latest(REGISTRY)
    metrics_files.forget_dead(Path(folder))
    everyone = CollectorRegistry()
    MultiProcessCollector(everyone, folder)
    return generate_latest(everyone)

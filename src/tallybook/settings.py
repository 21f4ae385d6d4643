"""Settings of a process, read once from `TALLYBOOK_*` environment variables and passed down as one frozen value."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from tallybook.core import failpoints

PREFIX: Final = "TALLYBOOK_"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class SettingsError(Exception):
    """An environment variable breaks a rule; the message names it, its value and the rule."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process of Tallybook needs to know. Each field is set by `TALLYBOOK_<FIELD>`; units are last in the names."""

    postgres_url: str = ""
    """`postgresql://…`, the book."""
    redis_url: str = ""
    """`redis://…`, `rediss://…` or `unix://…`, the till; on a Redis Cluster `redis+cluster://host:port,host:port` or `rediss+cluster://…`."""
    redis_config_vouched: bool = False
    """Take usage although Redis forbids CONFIG GET: the operator vouches for appendfsync always and the rest."""
    host: str = "127.0.0.1"
    port: int = 8080
    reuse_port: bool = False
    """Several API processes listen on the same port, and the kernel spreads connections over them."""
    workers: int = 1
    """API processes that `serve` runs."""
    partitions: int = 4
    """Partitions of the till and its log. Fixed when an installation is made; later values must agree."""
    postgres_connections_max: int = 10
    redis_connections_max: int = 32
    hot_window_h: int = 72
    """How long the till itself remembers an event id; older repeats are found in the book."""
    retention_days: int = 35
    """How old an event may be, and how long an event id never pays twice."""
    raw_events_months: int = 0
    """How many whole months single events are kept besides the running one; then their sums alone. 0: for ever."""
    period_grace_s: int = 60
    """How long after its end a period waits for late entries before it closes."""
    queue_max: int = 20_000
    """Charges that may wait for the till in one process; more are told to come back."""
    connections_max: int = 10_000
    """Connections that one API process takes; more are told to come back and closed."""
    request_s_max: int = 60
    """How long a request may take from its first line to its answer; then it is given up."""
    key_events_per_s: int = 0
    """Usage events that one API key may send to one API process in a second, and one second's worth at once; 0: no limit."""
    key_grace_s: int = 900
    """How long a key that was good is taken while Postgres does not answer, so that usage goes on; 0: not at all."""
    rollup_lag_s_max: int = 1800
    """How far the book may fall behind the till before usage is refused; 0: without limit."""
    reconcile_every_s: int = 300
    """How long the worker rests between two rounds of reconciliation; 0: it does none."""
    catalog_url: str = "https://ai-gateway.vercel.sh/v1/models"
    """Where the AI model catalog is synchronized from, daily; empty turns that off."""
    webhook_key: str = dataclasses.field(default="", repr=False)
    """Seals the signing secrets of webhook endpoints in the database; empty: they are stored as they are."""
    webhook_allow_private: bool = False
    """For development: webhooks may go to http:// and to private addresses."""
    drain_s: int = 20
    """How long a stopping process waits for requests in flight."""
    log_level: str = "info"
    failpoint: str = ""
    """For tests: the process kills itself when it reaches this place (`core.failpoints`) for the nth time: `name` or `name:nth`."""

    @property
    def retention_ms(self) -> int:
        """How old an event may be, in milliseconds."""
        return self.retention_days * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class _Bounds:
    least: int
    most: int


_BOUNDS: Final[Mapping[str, _Bounds]] = {
    "port": _Bounds(0, 65_535),
    "workers": _Bounds(1, 256),
    "partitions": _Bounds(1, 1024),
    "postgres_connections_max": _Bounds(2, 1000),
    "redis_connections_max": _Bounds(2, 10_000),
    "hot_window_h": _Bounds(1, 24 * 35),
    "retention_days": _Bounds(1, 400),
    "raw_events_months": _Bounds(0, 1200),
    "period_grace_s": _Bounds(0, 86_400),
    "queue_max": _Bounds(100, 10_000_000),
    "connections_max": _Bounds(10, 1_000_000),
    "request_s_max": _Bounds(1, 3600),
    "key_events_per_s": _Bounds(0, 10_000_000),
    "key_grace_s": _Bounds(0, 86_400),
    "rollup_lag_s_max": _Bounds(0, 604_800),
    "reconcile_every_s": _Bounds(0, 86_400),
    "drain_s": _Bounds(1, 3600),
}
_DAYS_A_MONTH_MIN: Final = 28
_WEBHOOK_KEY_CHARACTERS_MIN: Final = 32
_MAY_BE_EMPTY: Final = frozenset({"catalog_url"})
"""For any other field an empty variable is as good as none."""
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read every field that the environment sets. Raises SettingsError for a value that breaks its rule."""
    given: dict[str, str | int | bool] = {}
    for field in fields(Settings):
        variable = PREFIX + field.name.upper()
        text = environment.get(variable, "").strip()
        if text or (field.name in _MAY_BE_EMPTY and variable in environment):
            given[field.name] = _READERS[type(field.default)](field.name, text)
    return _consistent(Settings(**given))  # type: ignore[arg-type]


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables that make `from_environment` give these settings back: how a parent hands them to a child process."""
    return {PREFIX + field.name.upper(): str(getattr(settings, field.name)).strip() for field in fields(Settings)}


def misspelled(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each `TALLYBOOK_*` variable that nothing reads but that looks like one that is read."""
    known = [PREFIX + field.name.upper() for field in fields(Settings)]
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.85) for name in unknown}
    return [f"{name} is not read; did you mean {match[0]}?" for name, match in near.items() if match]


def require_stores(settings: Settings) -> None:
    """Raise SettingsError unless both stores are named."""
    for name, example in (("postgres_url", "postgresql://user@host/tallybook"), ("redis_url", "redis://host:6379/0")):
        if not getattr(settings, name):
            raise SettingsError(f"{PREFIX}{name.upper()} is not set (for example {example}); `tallybook dev` needs neither store")


def _consistent(settings: Settings) -> Settings:
    if settings.hot_window_h > settings.retention_days * 24:
        retention = f"the {settings.retention_days} days of {PREFIX}RETENTION_DAYS"
        raise SettingsError(f"{PREFIX}HOT_WINDOW_H is {settings.hot_window_h}, more than {retention}")
    if 0 < settings.raw_events_months * _DAYS_A_MONTH_MIN <= settings.retention_days:
        retention = (
            f"the {settings.retention_days} days of {PREFIX}RETENTION_DAYS: ids that are repeated are looked for in raw events"
        )
        raise SettingsError(f"{PREFIX}RAW_EVENTS_MONTHS is {settings.raw_events_months}, less than {retention}")
    if 0 < settings.raw_events_months * _DAYS_A_MONTH_MIN * 24 <= 2 * settings.hot_window_h:
        memory = f"the {settings.hot_window_h / 12:g} days that the till remembers ids, twice {PREFIX}HOT_WINDOW_H"
        raise SettingsError(f"{PREFIX}RAW_EVENTS_MONTHS is {settings.raw_events_months}, less than {memory}: they are compared")
    return settings


def _text(name: str, text: str) -> str:
    if name == "log_level" and text not in LOG_LEVELS:
        raise SettingsError(f"{PREFIX}LOG_LEVEL is {text!r}; it is one of {', '.join(LOG_LEVELS)}")
    if name == "webhook_key" and len(text) < _WEBHOOK_KEY_CHARACTERS_MIN:
        raise SettingsError(f"{PREFIX}WEBHOOK_KEY is too short; it has at least {_WEBHOOK_KEY_CHARACTERS_MIN} random characters")
    if name == "failpoint":
        _check_failpoint(text)
    return text


def _check_failpoint(text: str) -> None:
    try:
        failpoints.parse(text)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}FAILPOINT is {error}") from error


def _integer(name: str, text: str) -> int:
    bounds = _BOUNDS[name]
    if not (text.isascii() and text.isdigit() and len(text) < len("1000000000")) or not bounds.least <= int(text) <= bounds.most:
        raise SettingsError(f"{PREFIX}{name.upper()} is {text!r}; it is a whole number from {bounds.least} to {bounds.most}")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise SettingsError(f"{PREFIX}{name.upper()} is {text!r}; it is true or false")
    return text.lower() in _TRUE


_READERS: Final[Mapping[type, Callable[[str, str], str | int | bool]]] = {str: _text, int: _integer, bool: _flag}

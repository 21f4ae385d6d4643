"""Logs: one JSON object a line, with the id of the request it belongs to, and never an API key."""

import contextvars
import logging
import re
import sys
from typing import TextIO

import orjson

from tallybook.core import clock

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""The request that the current task serves."""

_KEY = re.compile(r"(ck_[0-9A-Za-z]{16})_[0-9A-Za-z_-]+")
_PLAIN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line: time, level, logger, message, request_id, what came as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        content: dict[str, object] = {
            "time": clock.iso(clock.from_ms(int(record.created * 1000))),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            content["request_id"] = current
        content.update({name: value for name, value in vars(record).items() if name not in _PLAIN_ATTRIBUTES})
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return without_keys(_line(content))


def without_keys(text: str) -> str:
    """The text with the secret of each API key in it struck out."""
    return _KEY.sub(r"\1_***", text)


def configure(level: str = "info", stream: TextIO = sys.stderr) -> None:
    """Send all logs of this process to a stream, from a level (debug, info, warning, error) on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def _line(content: dict[str, object]) -> str:
    try:
        return orjson.dumps(content, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # text with half a surrogate pair
        return orjson.dumps({name: ascii(value) for name, value in content.items()}).decode()

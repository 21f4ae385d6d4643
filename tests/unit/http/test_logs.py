"""Logs are JSON lines that name the request and never hold a key."""

import io
import json
import logging

import pytest

from tallybook.entrypoints import logs

KEY = "ck_0123456789abcdef_" + "s" * 43


def line(record: logging.LogRecord) -> dict[str, object]:
    return json.loads(logs.JsonFormatter().format(record))


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("tallybook.test", logging.WARNING, "file", 1, message, arguments, None)
    vars(made).update(extra)
    return made


def test_a_line_has_time_level_place_message_and_what_came_with_it() -> None:
    found = line(record("closed %d", 5, period="2026-11"))
    assert (found["level"], found["logger"], found["message"], found["period"]) == (
        "warning",
        "tallybook.test",
        "closed 5",
        "2026-11",
    )
    assert str(found["time"]).endswith("Z")


def test_a_line_names_the_request_it_belongs_to() -> None:
    token = logs.request_id.set("req_1")
    try:
        assert line(record("x"))["request_id"] == "req_1"
    finally:
        logs.request_id.reset(token)


def test_no_key_gets_into_a_line() -> None:
    made = record("key %s", KEY, header=KEY)
    made.exc_info = (ValueError, ValueError(KEY), None)
    text = logs.JsonFormatter().format(made)
    assert "s" * 43 not in text
    assert text.count("ck_0123456789abcdef_***") == 3


def test_what_is_no_utf8_is_still_one_line() -> None:
    assert "surr" in logs.JsonFormatter().format(record("surr \ud800"))


def test_configured_logs_go_to_the_stream_from_the_level_on(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    stream = io.StringIO()
    logs.configure("warning", stream)
    try:
        logging.getLogger("a").info("quiet")
        logging.getLogger("a").warning("loud")
    finally:
        logging.captureWarnings(capture=False)
    assert [json.loads(one)["message"] for one in stream.getvalue().splitlines()] == ["loud"]

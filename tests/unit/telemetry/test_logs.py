"""Log lines: one object a line, UTC times, no secrets, and no error for the caller."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.cli import main
from service.model import Granularity, Span, instant
from service.telemetry import logs

CHECKOUT = Path(__file__).parents[3]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
EACH_TEST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore structlog, the standard library's logging and the registered secrets."""
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.setattr(logs, "_secrets", frozenset())
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def logger(format: Literal["json", "console"] = "json", level: str = "info") -> tuple[Any, io.StringIO]:  # noqa: A002
    stream = io.StringIO()
    logs.configure(level, format, stream)
    return structlog.get_logger(), stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_begins_with_event_level_and_timestamp() -> None:
    """Every line begins with these three keys; the time is in UTC with a Z."""
    log, stream = logger()
    log.warning("window_failed", org="acme", window_start=datetime(2024, 1, 1, tzinfo=UTC))
    (line,) = lines(stream)
    assert list(line) == ["event", "level", "timestamp", "org", "window_start"]
    assert (line["event"], line["level"]) == ("window_failed", "warning")
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta()


def test_values_become_plain() -> None:
    """Times, spans, durations, enums, errors and numbers that JSON lacks are written as strings."""

    class Colour(Enum):
        RED = "red"

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    span = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    given = {
        "at": datetime(2024, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        "day": date(2024, 1, 1),
        "wait": timedelta(hours=1, milliseconds=500),
        "span": span,
        "error": ValueError("no"),
        "enums": [Colour.RED, Granularity.DAILY],
        "numbers": [1.5, float("nan"), float("inf"), 3, 10**5000],
        "unprintable": Unprintable(),
        "bytes": b"a\xff",
        "set": {1},
    }
    log, stream = logger()
    log.info("x", **given)
    (line,) = lines(stream)
    assert line["at"] == instant(datetime(2024, 1, 1, tzinfo=UTC))
    assert line["day"] == "2024-01-01"
    assert line["wait"] == "PT3600.5S"
    assert line["span"] == str(span)
    assert line["error"] == "ValueError: no"
    assert line["enums"] == ["red", "daily"]
    assert line["numbers"] == [1.5, "nan", "inf", 3, "an integer of 16610 bits"]
    assert line["unprintable"] == "<Unprintable>"
    assert line["bytes"] == "a\\xff"
    assert line["set"] == [1]


@EACH_TEST
@given(event=st.text(), context=st.dictionaries(st.text(), VALUES))
def test_any_value_is_one_json_line(event: str, context: dict[str, Any]) -> None:
    """Any event and context is written as exactly one line of ASCII that parses as JSON."""
    log, stream = logger()
    for key in ("event", "level", "timestamp", "exc_info", "stack_info"):
        context.pop(key, None)
    log.bind(**context).info(event.replace("%", "%%"))
    text = stream.getvalue()
    assert text.isascii()
    assert text.count("\n") == 1
    assert set(json.loads(text)) >= {"event", "level", "timestamp", *(key for key in context if key)}


@EACH_TEST
@given(event=st.text(), context=st.dictionaries(st.text(), VALUES))
def test_a_console_line_is_printable(event: str, context: dict[str, Any]) -> None:
    """No name can start a line, ring the bell, set a colour or change the text direction."""
    log, stream = logger("console")
    for key in ("event", "level", "timestamp", "exc_info", "stack_info"):
        context.pop(key, None)
    log.bind(**context).info(event.replace("%", "%%"))
    text = stream.getvalue()
    assert text.endswith("\n")
    assert text[:-1].isprintable()


def test_a_console_traceback_cannot_forge_a_line() -> None:
    """Every line of a traceback starts with a bar, also those from newlines in a message."""
    log, stream = logger("console")
    log.error("failed", exc_info=ValueError("a\n2024-01-01T00:00:00Z info forged\x1b[31m"))
    first, *rest = stream.getvalue().splitlines()
    assert "error" in first
    assert rest
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def test_tracebacks_hold_no_variables() -> None:
    """A traceback shows frames, without the values of their variables."""
    log, stream = logger()

    def fail() -> None:
        hidden = "hunter2" + "hunter3"
        raise ValueError(len(hidden))

    try:
        fail()
    except ValueError as error:
        log.exception("failed")
        log.warning("failed", exc_info=error)
    for line in lines(stream):
        assert "in fail" in line["exception"]
        assert "hunter2hunter3" not in line["exception"]


@EACH_TEST
@given(
    secret=st.text(min_size=logs.SECRET_MIN).filter(lambda text: text not in logs.REDACTED * 9),
    before=st.text(),
    after=st.text(),
)
def test_secrets_are_redacted_everywhere(secret: str, before: str, after: str) -> None:
    """A registered secret appears in no event, key, nested value, error or library's line."""
    log, stream = logger()
    logs.register_secret(secret)
    text = f"{before}{secret}{after}"
    log.info("e", nested=[{"deep": (text,)}], error=ValueError(text), raw=json.dumps(text))
    log.bind(**{text: 1}).info(text.replace("%", "%%"))
    logging.getLogger("library").error(text.replace("%", "%%"))
    logs._secrets = frozenset()
    first, *rest = lines(stream)
    assert logs.REDACTED in first["nested"][0]["deep"][0]
    for line in (first, *rest):
        line.pop("timestamp")
        assert secret not in " ".join(_strings(line))
    assert secret not in first["raw"]


def _strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                if key not in {"event", "level", "nested", "error", "raw", "logger"}:
                    yield key
                yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)


def test_truncation_shows_no_partial_secret() -> None:
    """Text is redacted before it is truncated, so that no partial secret is left at its end."""
    log, stream = logger()
    logs.register_secret("s3cr3t-s3cr3t")
    log.info("e", text="x" * (logs.TEXT_MAX - 4) + "s3cr3t-s3cr3t")
    assert "s3c" not in stream.getvalue()
    assert len(stream.getvalue()) < logs.TEXT_MAX + 200


def test_short_secrets_are_not_redacted() -> None:
    """Short values are not redacted: they would hide unrelated text."""
    log, stream = logger()
    logs.register_secret("org")
    log.info("x", org="organisation")
    assert lines(stream)[0]["org"] == "organisation"


def test_authorization_headers_are_redacted() -> None:
    """A bearer token is redacted by its form, also if it is not registered."""
    log, stream = logger()
    log.info("x", headers={"Authorization": "Bearer abcdefghijklmnopqrstuvwxyz"})
    assert lines(stream)[0]["headers"] == {"Authorization": "Bearer ***"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a postgresql://u:p@one two/x@host/db b\nme@here", "a postgresql://u:***@host/db b\nme@here"),
        ("postgresql+psycopg://u:one@host", "postgresql+psycopg://u:***@host"),
        ("postgresql://host:5432/db and postgresql://me@host", "postgresql://host:***@host"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("host=a password='one \\' two' port=1", "host=a password=*** port=1"),
        ("host=a sslpassword = one port=1", "host=a sslpassword = *** port=1"),
        ("password authentication failed", "password authentication failed"),
    ],
)
def test_passwords_in_dsns_are_redacted(text: str, shown: str) -> None:
    """A DSN's password is redacted by its form, whatever its length; in doubt more than the password is."""
    assert logs.redacted(text) == shown


def test_a_traceback_of_a_command_holds_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The traceback of an unexpected error is redacted; the exit code is 1."""
    error = RuntimeError("postgresql://u:canary-one@host and canary-two")
    monkeypatch.setattr("service.cli.migrate.run", lambda _arguments: (_ for _ in ()).throw(error))
    logs.register_secret("canary-two")
    assert main(["migrate", "--config", "none"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.endswith("RuntimeError: postgresql://u:***@host and ***\n")


def test_libraries_log_through_the_same_output() -> None:
    """Library warnings, Python warnings and errors with tracebacks have the form of the program's lines."""
    _, stream = logger()
    logging.getLogger("aiohttp.server").error("failed for %s", "x", exc_info=(ValueError, ValueError("no"), None))
    logging.getLogger("apscheduler").info("too much detail")
    logging.getLogger("psycopg").warning("bad %d", "arguments")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second, third = lines(stream)
    assert (first["event"], first["level"], first["logger"]) == ("failed for x", "error", "aiohttp.server")
    assert "ValueError: no" in first["exception"]
    assert second["event"] == "bad %d"
    assert "DeprecationWarning" in third["event"]


def test_a_reload_changes_the_level_of_loggers_in_use() -> None:
    """A logger created earlier uses the new level."""
    log, stream = logger(level="warning")
    log.info("hidden")
    logs.configure("debug", "json", stream)
    log.debug("shown")
    logging.getLogger("apscheduler").debug("shown too")
    assert [line["event"] for line in lines(stream)] == ["shown", "shown too"]


def test_a_broken_pipe_raises_nothing() -> None:
    """The program continues when the reader of standard output closes it, and ends with its usual exit code."""
    script = (
        "import structlog, sys, time; from service.telemetry import logs; logs.configure('info', 'json')\n"
        "for _ in range(2000): structlog.get_logger().info('x' * 100)\n"
        "sys.stderr.write('done')"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"done")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_raises_nothing() -> None:
    """Lines that cannot be written are dropped, without an error at interpreter exit."""
    script = (
        "import structlog, sys; from service.telemetry import logs; logs.configure('info', 'json')\n"
        "structlog.get_logger().info('x')\n"
        "sys.stderr.write('done')"
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=CHECKOUT, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"done")


def test_a_closed_stream_raises_nothing() -> None:
    """Logging to a closed stream raises nothing."""
    log, stream = logger()
    stream.close()
    log.info("x")

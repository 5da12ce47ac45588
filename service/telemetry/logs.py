"""The log: one object a line, whatever goes into it, and never a secret.

What servers and users name things is hostile until shown otherwise. So every value is made plain, rid of secrets
and cut to a bound before it is written, and nothing that goes wrong with the writing reaches who logged.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import threading
import traceback
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, MutableMapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from html import escape
from typing import Any, Literal, TextIO
from urllib.parse import quote, quote_plus

import structlog

from service.clock import SystemClock
from service.model import instant

SECRET_MIN = 6
REDACTED = "***"
TEXT_MAX = 32_768
DEPTH_MAX = 8
ITEMS_MAX = 1000
DIGITS_BITS_MAX = 4096

_clock = SystemClock()
_header = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{16,}")
_dsn = re.compile(r"(?i)postgres(?:ql)?(?:\+[a-z0-9]{1,20})?://[^:\s]{0,300}:")
_password = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|\S+)")
_percent = re.compile(r"%[0-9A-F]{2}")
_GO = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_secrets: frozenset[str] = frozenset()

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None


def configure(level: str, format: Literal["json", "console"], stream: TextIO | None = None) -> None:  # noqa: A002
    """Send what the program and its libraries log to the stream; again at a reload, for what changed.

    Args:
        level: debug, info, warning, error or critical. Libraries speak from warning on, but for debug.
        format: a JSON object a line, or a line for people.
        stream: standard output where it is not given.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    sink = _Sink(stream or sys.stdout)
    render = _render(_json if format == "json" else _console)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(capture=True)
    logging.root.handlers[:] = [_Libraries(sink, render)]
    logging.root.setLevel(threshold if threshold == logging.DEBUG else max(threshold, logging.WARNING))


def register_secret(value: str) -> None:
    """Write ``***`` in its place from now on, in whichever spelling it travels; too short a value is left."""
    global _secrets  # noqa: PLW0603 - one process, one log
    if len(value) >= SECRET_MIN:
        _secrets |= spellings(value)


def forget_secret(value: str) -> None:
    """Keep a value no longer, such as a token that has run out."""
    global _secrets  # noqa: PLW0603 - one process, one log
    _secrets -= spellings(value)


def redacted(text: str) -> str:
    """The text without the secrets that were registered, an authorization header's value, or a DSN's password."""
    found = [secret for secret in _secrets if secret in text]
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    if _dsn.search(text):
        text = "".join(map(_without_password, text.splitlines(keepends=True)))
    text = _password.sub(rf"\1{REDACTED}", text)
    return _header.sub(rf"\1\2{REDACTED}", text)


def _without_password(line: str) -> str:
    """The line without what stands in a DSN after ``//``, from its first ``:`` to the line's last ``@``."""
    found = _dsn.search(line)
    last = line.rfind("@")
    return f"{line[: found.end()]}{REDACTED}{line[last:]}" if found and found.end() <= last else line


def spellings(secret: str) -> frozenset[str]:
    """A secret as it may travel: in a URL, in a form, in JSON, in HTML, in Base64, in a library's error.

    Libraries differ in what they encode: JavaScript's URLs leave ``!'()*`` alone, PHP's JSON escapes the slash,
    Go's JSON the characters of HTML.
    """
    encoded = secret.encode("utf-8", "replace")
    as_url = {quote(encoded, safe=""), quote(encoded, safe="!'()*"), quote_plus(encoded)}
    as_url |= {_percent.sub(lambda found: found[0].lower(), each) for each in as_url}
    as_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    as_json |= {each.replace("/", "\\/") for each in as_json} | {each.translate(_GO) for each in as_json}
    as_html = {escape(secret), escape(secret).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}
    as_base64 = {encode(encoded).decode() for encode in (b64encode, urlsafe_b64encode)}
    as_base64 |= {each.rstrip("=") for each in as_base64}
    return frozenset({secret, repr(encoded)[2:-1]} | as_url | as_json | as_html | as_base64)


def plain(value: object, depth: int = 0) -> Plain:  # noqa: C901, PLR0911, PLR0912 - one case for each kind
    """The value as JSON can say it, its strings without secrets and bounded; never raises."""
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case Enum():
            return plain(value.value, depth)
        case int():
            return (
                int(value) if value.bit_length() <= DIGITS_BITS_MAX else f"an integer of {value.bit_length()} bits"
            )
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case datetime() if value.tzinfo is not None:
            return _text(_printed(value, instant))
        case date() | time():
            return value.isoformat()
        case timedelta():
            return f"PT{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "S"
        case bytes() | bytearray():
            return _text(bytes(value).decode("utf-8", "backslashreplace"))
        case BaseException():
            return _text(f"{type(value).__name__}: {_printed(value)}")
        case Mapping() if depth < DEPTH_MAX:
            pairs = list(value.items())[:ITEMS_MAX]
            return {_text(_printed(key)): plain(item, depth + 1) for key, item in pairs}
        case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX and not hasattr(value, "_fields"):
            return [plain(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
        case _:
            return _text(_printed(value))


def _printed(value: Any, how: Callable[[Any], str] = str) -> str:  # noqa: ANN401
    try:
        return how(value)
    except Exception:  # noqa: BLE001 - a value may refuse to be printed
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    text = redacted(str(text))
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def _render(write: Callable[[dict[str, Plain]], str]) -> structlog.typing.Processor:
    def render(_logger: object, _method: str, given: MutableMapping[str, Any]) -> str:
        raised = _exception(given.pop("exc_info", None))
        given.pop("stack_info", None)
        line: dict[str, Plain] = {
            "event": plain(given.pop("event", "")),
            "level": plain(given.pop("level", "info")),
            "timestamp": instant(_clock.now()),
        }
        for key, value in given.items():
            line.setdefault(_text(key), plain(value))
        if raised is not None:
            # format_exception keeps out the frames' variables, and with them the secrets among those
            line["exception"] = _text(_printed(raised, lambda error: "".join(traceback.format_exception(error))))
        return write(line)

    return render


def _exception(given: object) -> BaseException | None:
    match given:
        case BaseException():
            return given
        case (_, BaseException() as error, _):
            return error
        case None | False | tuple():
            return None
        case _:
            return sys.exc_info()[1]


def _json(line: dict[str, Plain]) -> str:
    return json.dumps(line, allow_nan=False)


def _console(line: dict[str, Plain]) -> str:
    raised = str(line.pop("exception", ""))
    head = f"{line.pop('timestamp')} {line.pop('level'):<8} {_visible(line.pop('event'))}"
    pairs = "".join(f" {_visible(key)}={_visible(value)}" for key, value in line.items())
    return "\n  | ".join([head + pairs, *map(_visible, raised.splitlines())])


def _visible(value: Plain) -> str:
    """The value on one line, with nothing in it that a terminal would obey."""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def printable(text: str) -> str:
    """The text with what a terminal would obey, or could not show, spelled out."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class _Sink:
    """Where lines go; what cannot be written is dropped, for the work is worth more than its log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._torn = False
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def write(self, line: str) -> None:
        """Write a line, whole or not at all as far as it lies with us."""
        with self._lock:
            try:
                if self._descriptor is None:
                    self._stream.write(f"{line}\n")
                    self._stream.flush()
                else:
                    self._write(f"{line}\n".encode("utf-8", "backslashreplace"), self._descriptor)
            except (OSError, ValueError):
                return

    def _write(self, data: bytes, descriptor: int) -> None:
        """Write past the stream's buffer: what a full disk leaves there would spoil the process's end."""
        self._stream.flush()
        rest = b"\n" + data if self._torn else data
        while rest:
            written = os.write(descriptor, rest)
            self._torn = written < len(rest)
            rest = rest[written:]

    debug = info = warning = warn = error = critical = exception = log = msg = write


class _Libraries(logging.Handler):
    """What aiohttp, APScheduler, psycopg and the others log, in our form."""

    def __init__(self, sink: _Sink, render: structlog.typing.Processor) -> None:
        super().__init__()
        self._sink = sink
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; called under the handler's own lock."""
        level = record.levelname.lower()
        line = {
            "event": _printed(record, logging.LogRecord.getMessage),
            "level": level,
            "logger": record.name,
            "exc_info": record.exc_info,
        }
        self._sink.write(str(self._render(None, level, line)))

"""Log lines: one object or one line an event, bounded, without secrets.

Names and messages from servers and users are hostile input: every value is converted to plain JSON types, redacted
and bounded before structlog's renderer sees it. An error in logging never reaches the caller.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from base64 import b64encode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from html import escape
from typing import Any, Literal, TextIO
from urllib.parse import quote, quote_plus

import structlog
from structlog.dev import ConsoleRenderer
from structlog.stdlib import ProcessorFormatter
from structlog.typing import Processor

from service.clock import SystemClock
from service.model import instant
from service.telemetry.events import Event
from service.telemetry.log_sink import LogSink
from service.telemetry.text import printable

SECRET_MIN = 6
"""Characters of the shortest secret that is looked for."""
REDACTED = "***"
TEXT_MAX = 32_768
"""Characters of one string in a log line."""
DRAIN_TIMEOUT = 1.0
"""Seconds at the end of the process for lines that are not yet written."""
DEPTH_MAX = 8
ITEMS_MAX = 1000
INTEGER_BITS_MAX = 4096

_clock = SystemClock()
_AUTHORIZATION = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{16,}")
_DSN = re.compile(r"(?i)postgres(?:ql)?(?:\+[a-z0-9]{1,20})?://[^:\s]{0,300}:")
_PASSWORD = re.compile(r"(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'?|\S+)")
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_GO_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
_secrets: frozenset[str] = frozenset()
_sink: LogSink | None = None

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None


Format = Literal["json", "console", "auto"]


def configure(level: str, format: Format, stream: TextIO | None = None) -> None:  # noqa: A002 - the key's name
    """Send the log lines of the program and its libraries to a stream; called again when a reload changes them.

    Args:
        level: debug, info, warning, error or critical. Libraries log from warning on, and everything at debug.
        format: a JSON object a line, or a line for people; ``auto`` is the latter on a terminal only.
        stream: standard output where it is not given.
    """
    global _sink  # noqa: PLW0603 - one log for the process
    threshold = logging.getLevelNamesMapping()[level.upper()]
    render: list[Processor] = [structlog.processors.format_exc_info, _sanitize]
    stream = stream or sys.stdout
    terminal = stream.isatty()
    if format == "json" or (format == "auto" and not terminal):
        render += [structlog.processors.JSONRenderer(allow_nan=False)]
    else:
        colors = terminal and not os.environ.get("NO_COLOR")
        level_styles = defaultdict(str, ConsoleRenderer.get_default_level_styles(colors=colors))
        render += [_escape, ConsoleRenderer(colors=colors, sort_keys=False, level_styles=level_styles)]
    sink = _sink = LogSink.for_stream(stream, _sink)
    sink.render_dropped = partial(_render, render, Event.LOG_LINES_DROPPED)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: sink,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(capture=True)
    logging.root.handlers[:] = [_LibraryHandler(sink, render)]
    logging.root.setLevel(threshold if threshold == logging.DEBUG else max(threshold, logging.WARNING))


def drain() -> None:
    """Wait up to a second until the log is written; what is not read until then is dropped."""
    if _sink is not None:
        _sink.drain(DRAIN_TIMEOUT)


def write_line(line: str) -> None:
    """Write a line that is not an event; nothing before the log is configured."""
    if _sink is not None:
        _sink.write(redacted(line))


def _render(render: Sequence[Processor], event: Event, count: int) -> str:
    """A line of the log about itself."""
    line: Any = {"event": event, "level": logging.getLevelName(event.level).lower(), "lines": count}
    for each in render:
        line = each(None, "", line)
    return str(line)


def register_secret(value: str) -> None:
    """Replace a value by ``***`` in everything logged from now on, in each of its spellings.

    Values of fewer than ``SECRET_MIN`` characters are not registered: they would hide unrelated text.
    """
    global _secrets  # noqa: PLW0603 - one log for the process
    if len(value) >= SECRET_MIN:
        _secrets |= spellings(value)


def redacted(text: str) -> str:
    """Replace registered secrets, the values of authorization headers and passwords in DSNs."""
    contained = [secret for secret in _secrets if secret in text]
    for secret in sorted(contained, key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    if _DSN.search(text):
        text = "".join(map(_without_password, text.splitlines(keepends=True)))
    text = _PASSWORD.sub(rf"\1{REDACTED}", text)
    return _AUTHORIZATION.sub(rf"\1\2{REDACTED}", text)


def _without_password(line: str) -> str:
    """Replace what follows ``//`` in a DSN, from its first ``:`` to the last ``@`` of the line."""
    match = _DSN.search(line)
    last = line.rfind("@")
    return f"{line[: match.end()]}{REDACTED}{line[last:]}" if match and match.end() <= last else line


def spellings(secret: str) -> frozenset[str]:
    """The encodings of a secret in URLs, forms, JSON, HTML, Base64 and Python's ``repr``.

    Libraries differ: JavaScript's URL encoding leaves ``!'()*`` alone, PHP's JSON escapes the slash, Go's JSON the
    characters of HTML.
    """
    encoded = secret.encode("utf-8", "replace")
    as_url = {quote(encoded, safe=""), quote(encoded, safe="!'()*"), quote_plus(encoded)}
    as_url |= {_PERCENT.sub(lambda match: match[0].lower(), each) for each in as_url}
    as_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    as_json |= {each.replace("/", "\\/") for each in as_json} | {each.translate(_GO_ESCAPES) for each in as_json}
    as_html = {escape(secret), escape(secret).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}
    as_base64 = {encode(encoded).decode() for encode in (b64encode, urlsafe_b64encode)}
    as_base64 |= {each.rstrip("=") for each in as_base64}
    return frozenset({secret, repr(encoded)[2:-1]} | as_url | as_json | as_html | as_base64)


def to_plain(value: object, depth: int = 0) -> Plain:  # noqa: C901, PLR0911, PLR0912 - one case for each type
    """Convert to JSON's types, with strings redacted and bounded; never raises."""
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case Enum():
            return to_plain(value.value, depth)
        case int():
            bits = value.bit_length()
            return int(value) if bits <= INTEGER_BITS_MAX else f"an integer of {bits} bits"
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
            return {_text(_printed(key)): to_plain(item, depth + 1) for key, item in pairs}
        case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX and not hasattr(value, "_fields"):
            return [to_plain(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
        case _:
            return _text(_printed(value))


def _printed(value: object, how: Callable[[Any], str] = str) -> str:
    try:
        return how(value)
    except Exception:  # noqa: BLE001 - a value's own code
        return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    text = redacted(str(text))
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 1] + "…"


def _sanitize(_logger: object, _method: str, event_dict: MutableMapping[str, Any]) -> dict[str, Plain]:
    """Turn an event into plain, redacted, bounded values; event, level and timestamp come first."""
    event_dict.pop("stack_info", None)
    line: dict[str, Plain] = {
        "event": to_plain(event_dict.pop("event", "")),
        "level": to_plain(event_dict.pop("level", "info")),
        "timestamp": instant(_clock.now()),
    }
    for key, value in event_dict.items():
        line.setdefault(_text(key), to_plain(value))
    return line


def _escape(_logger: object, _method: str, line: MutableMapping[str, Any]) -> dict[str, str]:
    """Turn each value into one printable line; the lines of a traceback start with a bar."""
    trace = line.pop("exception", None)
    escaped = {printable(key): _one_line(value) for key, value in line.items()}
    if trace is not None:
        escaped["exception"] = "\n".join(f"  | {_one_line(each)}" for each in str(trace).splitlines())
    return escaped


def _one_line(value: Plain) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


class _LibraryHandler(logging.Handler):
    """Writes what aiohttp, APScheduler, psycopg and other libraries log."""

    def __init__(self, sink: LogSink, render: Sequence[Processor]) -> None:
        super().__init__()
        self._sink = sink
        self.formatter = ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[ProcessorFormatter.remove_processors_meta, *render],
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; one whose arguments do not fit its message is written without them."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - a library's own arguments
            record.msg, record.args = _printed(record.msg), None
            line = self.format(record)
        self._sink.write(line)

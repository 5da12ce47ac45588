"""The arguments of ``flow-outcomes simulate``; imports no server, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.simulator.faults import FAULT_NAMES, Fault

_FAULT = re.compile(
    r"(?P<name>[a-z0-9_]+?)(?:=(?P<value>.*?))?(?:@(?P<page>\d+))?(?:x(?P<times>\d+))?(?:%(?P<chance>[\d.]+))?",
    re.DOTALL,
)

HOME = "Home"
_DIGITS_MAX, _ORGS_MAX = 10, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on")
    add("--port", type=_whole_number(0, 65_535), default=0, help="0: any free one, printed on standard output")
    add("--seed", type=int, default=7, help="seed of the figures")
    add("--flows", type=_whole_number(0), default=12, help="flows per org")
    add("--outcomes", type=_whole_number(1), default=5, help="outcomes per flow")
    add(
        "--orgs",
        type=_orgs,
        default="1",
        help='their number, or "NAME:SECRET,NAME:SECRET"; NAME is the client id',
    )
    add("--timezone", type=_timezone, default="UTC", help="IANA name of the orgs' reporting time zone")
    add("--rate", type=_whole_number(1), default=10, help="requests in any second, per org")
    add("--unlimited", action="store_true", help="no rate limit")
    add("--token-lifetime", type=_seconds, default=86_400, metavar="SECONDS", help="expires_in of a token")
    add("--cursor-lifetime", type=_seconds, default=600, metavar="SECONDS", help="how long a page token is valid")
    add(
        "--cardinality",
        type=_whole_number(1),
        default=None,
        metavar="N",
        help="maximum (flow, bucket) pairs per query",
    )
    add(
        "--order",
        choices=("flow", "bucket"),
        default="flow",
        help="what a scan iterates over first",
    )
    add("--split-entries", action="store_true", help="split each page's last entry over two pages")
    add(
        "--per-minute",
        type=_whole_number(1),
        default=300,
        metavar="N",
        help="flow-aggregates: requests per minute",
    )
    add("--extra-dimension", action="store_true", help="flow-aggregates: split groups by mediaType too")
    add(
        "--job-polls",
        type=_whole_number(0),
        default=2,
        metavar="N",
        help="flow-aggregates: polls before a job is done",
    )
    add("--no-names", action="store_true", help="flow-aggregates: the role may not list flows and outcomes")
    add(
        "--deleted-flows",
        type=_whole_number(0),
        default=0,
        metavar="N",
        help="flow-aggregates: how many of the flows are deleted",
    )
    add(
        "--result-limit",
        type=_whole_number(1),
        default=None,
        metavar="N",
        help="flow-aggregates: the most results of a response",
    )
    add(
        "--retention",
        type=_whole_number(1),
        default=None,
        metavar="DAYS",
        help="how long records are kept; flow-aggregates: the API says so",
    )
    add("--no-retention", action="store_true", help="flow-aggregates: the role may not see the retention")
    add(
        "--divisions",
        type=_names,
        default=(HOME,),
        metavar="NAME,NAME",
        help="flow-aggregates: the org's divisions; the flows are spread over them",
    )
    add(
        "--permitted-divisions",
        type=_names,
        default=None,
        metavar="NAME,NAME",
        help="the divisions of the client's role, all by default; it sees no figure of another",
    )
    add(
        "--nightly-corrections",
        action="store_true",
        help="a nightly pipeline adds records to days that ended two or three days ago",
    )
    add("--latency", type=_seconds, default=0.0, metavar="SECONDS", help="before each response")
    add("--now", type=_instant, default=None, metavar="ISO", help="the initial simulated time")
    add(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="NAME[=VALUE][@PAGE][xTIMES][%CHANCE]",
        help=f"may be repeated; NAME is one of: {', '.join(sorted(FAULT_NAMES))}",
    )


def parse_fault(text: str) -> tuple[str, Fault]:
    """Parse a fault such as ``bad_count=-1@2x1`` or ``server_error=502%0.1``.

    A value that is not valid JSON is text. Raises ArgumentTypeError for an invalid fault.
    """
    match = _FAULT.fullmatch(text)
    if not match or match["name"] not in FAULT_NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fault; use one of {', '.join(sorted(FAULT_NAMES))}")
    try:
        chance = float(match["chance"] or 1)
    except ValueError:
        chance = math.nan
    if not 0 <= chance <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: the chance must be a number from 0 to 1")
    return match["name"], Fault(
        value=_value(match["value"]),
        page=int(match["page"]) if match["page"] else None,
        times=int(match["times"]) if match["times"] else None,
        probability=chance,
    )


def _orgs(text: str) -> Sequence[tuple[str, str]]:
    """Parse client ids and secrets; a number gives ``acme``, ``org_2`` and so on, an empty secret the default."""
    if text.isascii() and text.isdigit():
        numbers = range(1, _whole_number(1, _ORGS_MAX)(text) + 1)
        return [("acme" if number == 1 else f"org_{number}", "") for number in numbers]
    pairs = (pair.partition(":") for pair in text.split(","))
    orgs = [(name, secret) for name, _, secret in pairs if name]
    if not orgs:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 1 nor a list of NAME:SECRET")
    return orgs


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    if not names:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return names


def _whole_number(minimum: int, maximum: int = 10**9) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else -1
        if not minimum <= value <= maximum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} to {maximum}")
        return value

    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _value(text: str | None) -> object:
    """Parse JSON, otherwise return the text; ``null`` stays text, as None is the fault's default."""
    if text is None or text == "null":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _timezone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise argparse.ArgumentTypeError(f"{name!r} is not an IANA time zone such as Europe/Berlin") from None


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an ISO 8601 instant") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)

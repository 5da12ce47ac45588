"""The arguments of ``flow-outcomes simulate``; imports no server, so that ``--help`` is fast."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from service.simulator.faults import FAULT_NAMES, Fault, Faults
from service.simulator.organisation import SIMULATED_SECRET, SimulatedOrg, SimulatorConfig

_FAULT = re.compile(
    r"(?P<name>[a-z0-9_]+?)(?:=(?P<value>.*?))?(?:@(?P<page>\d+))?(?:x(?P<times>\d+))?(?:%(?P<chance>[\d.]+))?",
    re.DOTALL,
)

_DIGITS_MAX, _ORGS_MAX = 10, 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="the address to listen on")
    add("--port", type=_whole(0, 65_535), default=0, help="0: any free one, told on standard output")
    add("--seed", type=int, default=7, help="what the figures follow from")
    add("--flows", type=_whole(0), default=12, help="flows of an org")
    add("--outcomes", type=_whole(1), default=5, help="outcomes of a flow")
    add("--orgs", type=_orgs, default="1", help='how many, or "NAME:SECRET,NAME:SECRET"; NAME is the client id')
    add("--timezone", type=_timezone, default="UTC", help="the orgs' reporting time zone, by its IANA name")
    add("--rate", type=_whole(1), default=10, help="requests in any second, for each org")
    add("--unlimited", action="store_true", help="no rate limit")
    add("--token-lifetime", type=_seconds, default=86_400, metavar="SECONDS", help="told as expires_in")
    add("--cursor-lifetime", type=_seconds, default=600, metavar="SECONDS", help="how long a page token is good")
    add(
        "--cardinality", type=_whole(1), default=None, metavar="N", help="the most (flow, bucket) pairs of a query"
    )
    add("--order", choices=("flow", "bucket"), default="flow", help="what a scan walks along first")
    add("--split-entries", action="store_true", help="each page's last entry goes on with the next page")
    add(
        "--per-minute",
        type=_whole(1),
        default=300,
        metavar="N",
        help="flow-aggregates: requests a minute",
    )
    add("--extra-dimension", action="store_true", help="flow-aggregates: groups come split by mediaType too")
    add(
        "--job-polls",
        type=_whole(0),
        default=2,
        metavar="N",
        help="flow-aggregates: how often a job is not done yet",
    )
    add("--no-names", action="store_true", help="flow-aggregates: the role may not list flows and outcomes")
    add("--latency", type=_seconds, default=0.0, metavar="SECONDS", help="before each answer")
    add("--now", type=_moment, default=None, metavar="ISO", help="the simulated time to begin with")
    add(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="NAME[=VALUE][@PAGE][xTIMES][%CHANCE]",
        help=f"may be repeated; NAME is one of: {', '.join(sorted(FAULT_NAMES))}",
    )


def parse_fault(text: str) -> tuple[str, Fault]:
    """A fault as the command line spells it: ``bad_count=-1@2x1``, ``server_error=502%0.1``.

    The value is read as JSON where it is some, else as text. ArgumentTypeError for what is no fault.
    """
    found = _FAULT.fullmatch(text)
    if not found or found["name"] not in FAULT_NAMES:
        raise argparse.ArgumentTypeError(f"{text!r} is no fault; there are {', '.join(sorted(FAULT_NAMES))}")
    try:
        chance = float(found["chance"] or 1)
    except ValueError:
        chance = math.nan
    if not 0 <= chance <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: the chance is a number from 0 to 1")
    return found["name"], Fault(
        value=_value(found["value"]),
        page=int(found["page"]) if found["page"] else None,
        times=int(found["times"]) if found["times"] else None,
        probability=chance,
    )


def config_of(args: argparse.Namespace) -> SimulatorConfig:
    """What the arguments describe."""
    org = SimulatedOrg(
        flows=args.flows,
        outcomes=args.outcomes,
        timezone=args.timezone,
        requests_per_second=None if args.unlimited else args.rate,
        token_lifetime=args.token_lifetime,
        cursor_lifetime=args.cursor_lifetime,
        cardinality=args.cardinality,
        order=args.order,
        split_entries=args.split_entries,
        latency=args.latency,
        requests_per_minute=None if args.unlimited else args.per_minute,
        extra_dimension=args.extra_dimension,
        job_polls=args.job_polls,
        names_permitted=not args.no_names,
        faults=Faults(**dict(args.fault)),
    )
    orgs = {client_id: replace(org, client_secret=secret) for client_id, secret in args.orgs}
    return SimulatorConfig(orgs=orgs, seed=args.seed, host=args.host, port=args.port)


def _orgs(text: str) -> Sequence[tuple[str, str]]:
    """Client ids and secrets; a bare number gives ``acme``, ``org_2``, ``org_3`` and so on."""
    if text.isascii() and text.isdigit():
        numbers = range(1, _whole(1, _ORGS_MAX)(text) + 1)
        return [("acme" if number == 1 else f"org_{number}", SIMULATED_SECRET) for number in numbers]
    pairs = (one.partition(":") for one in text.split(","))
    found = [(name, secret or SIMULATED_SECRET) for name, _, secret in pairs if name]
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 and no NAME:SECRET")
    return found


def _whole(least: int, most: int = 10**9) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return value

    return number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _value(text: str | None) -> object:
    """JSON where it is some, but for ``null``: as a value that is the fault's default, as text it is null."""
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
        raise argparse.ArgumentTypeError(f"{name!r} is no IANA time zone, such as Europe/Berlin") from None


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO 8601 instant") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)

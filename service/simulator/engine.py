"""The rules of the query-builder engine: what it takes for a query, and what it refuses.

After the contract of the query-builder API, at its strictest: what the contract does not show is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NoReturn, cast
from zoneinfo import ZoneInfo

import msgspec

from service.simulator.buckets import TimeGroup, too_fine
from service.simulator.instants import parse_instant, parse_period
from service.simulator.refusal import Refusal, bad_request

_REQUIRED = frozenset({"queryType", "dateFrom", "dateTo", "metrics", "filters", "groupBy", "timeGroup", "limit"})
_ALLOWED = _REQUIRED | {"metricsDelay", "nextPageToken"}
_FILTER = frozenset({"type", "dimension", "operator", "values"})
_STEPS = ("hourly", "daily", "monthly")
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class BuilderQuery:
    """A query that keeps the rules.

    Attributes:
        start: dateFrom, in milliseconds since 1970.
        end: dateTo, likewise.
        step: the granularity asked for.
        limit: entries a page.
        flows: the flow ids that a filter names; None is all flows.
        delay: the span before ``end`` whose records are ignored, in milliseconds.
        token: the page token that was sent, or None.
        digest: of everything but the page token.
    """

    start: int
    end: int
    step: TimeGroup
    limit: int
    flows: frozenset[str] | None
    delay: int
    token: str | None
    digest: str


def decode(body: bytes) -> object:
    """The JSON of a request; Refusal (400) where it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_request("The request could not be read: not valid JSON") from None


def digest_of(document: object) -> str:
    """A digest of a query without its page token, for anything that at all resembles one."""
    if isinstance(document, Mapping) and isinstance(builder := document.get("queryBuilder"), Mapping):
        document = {key: value for key, value in builder.items() if key != "nextPageToken"}
    return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:16]


def parse_query(document: object) -> BuilderQuery:
    """A query out of a request's JSON; Refusal (400) with the first rule that it breaks."""
    builder = _builder(document)
    _check_constants(builder)
    limit = builder["limit"]
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        _refuse(f"limit must be a whole number from 1 to {MAX_LIMIT}")
    token = builder.get("nextPageToken")
    if "nextPageToken" in builder and not (isinstance(token, str) and token):
        _refuse("nextPageToken must be a token as it was answered; leave it out for page one")
    start, end = _instant(builder, "dateFrom"), _instant(builder, "dateTo")
    if start >= end:
        _refuse("dateFrom must be before dateTo")
    return BuilderQuery(
        start=start,
        end=end,
        step=cast("TimeGroup", builder["timeGroup"]),
        limit=limit,
        flows=_flows(builder["filters"]),
        delay=_delay(builder),
        token=cast("str | None", token),
        digest=digest_of(document),
    )


def check_granularity(query: BuilderQuery, timezone: ZoneInfo, limits: tuple[int, int, int]) -> None:
    """Refusal (400 ``granularityTooFine``) where the asked span is longer than the granularity allows."""
    if too_fine(query.start, query.end, query.step, timezone, limits):
        raise granularity_too_fine()


def granularity_too_fine() -> Refusal:
    """The refusal to the letter of the contract."""
    return bad_request("Invalid date range for the specified granularity", "granularityTooFine")


def cardinality_exceeded(found: int, bound: int) -> Refusal:
    """The refusal of a query that would answer too much."""
    return bad_request(
        f"The cardinality of the query ({found} combinations) exceeds {bound}; narrow it", "cardinality.exceeded"
    )


def _builder(document: object) -> Mapping[str, object]:
    """The query's own object, with all the fields that it needs and none besides."""
    if not isinstance(document, Mapping):
        _refuse("the body must be an object")
    if document.keys() != {"queryBuilder"}:
        _refuse("the body must hold queryBuilder and nothing else")
    builder = document["queryBuilder"]
    if not isinstance(builder, Mapping):
        _refuse("queryBuilder must be an object")
    if missing := _REQUIRED - builder.keys():
        _refuse(f"queryBuilder lacks {', '.join(sorted(missing))}")
    if unknown := builder.keys() - _ALLOWED:
        _refuse(f"queryBuilder does not know {', '.join(sorted(unknown))}")
    return builder


def _check_constants(builder: Mapping[str, object]) -> None:
    if builder["queryType"] != "routing/engagement":
        _refuse('queryType must be "routing/engagement"')
    if builder["metrics"] != ["flow-outcomes"]:
        _refuse('metrics must be ["flow-outcomes"]')
    if builder["groupBy"] != ["flow-id"]:
        _refuse('groupBy must be ["flow-id"], and is never empty')
    if builder["timeGroup"] not in _STEPS:
        _refuse(f"timeGroup must be one of {', '.join(_STEPS)}")


def _instant(builder: Mapping[str, object], key: str) -> int:
    value = builder[key]
    try:
        return parse_instant(cast("str", value))
    except (TypeError, ValueError):
        _refuse(f"{key} must be an ISO 8601 instant that ends in Z")


def _delay(builder: Mapping[str, object]) -> int:
    if "metricsDelay" not in builder:
        return 0
    try:
        return parse_period(cast("str", builder["metricsDelay"]))
    except (TypeError, ValueError):
        _refuse("metricsDelay must be an ISO 8601 period, such as PT1H")


def _flows(filters: object) -> frozenset[str] | None:
    """The flow ids that every filter lets through."""
    if not isinstance(filters, Sequence) or isinstance(filters, str):
        _refuse("filters must be a list")
    kept: frozenset[str] | None = None
    for one in filters:
        if not isinstance(one, Mapping) or one.keys() != _FILTER:
            _refuse("a filter has type, dimension, operator and values, and nothing else")
        if (one["type"], one["dimension"], one["operator"]) != ("dimension", "flow-id", "eq"):
            _refuse('a filter is of type "dimension", dimension "flow-id", operator "eq"')
        values = one["values"]
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(value, str) and value for value in values)
        ):
            _refuse("a filter's values must be a list of at least one flow id")
        kept = frozenset(values) if kept is None else kept & frozenset(values)
    return kept


def _refuse(message: str) -> NoReturn:
    raise bad_request(f"Invalid query: {message}")

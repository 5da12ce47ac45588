"""Queries of the query-builder API: parsing and validation.

Follows the guide at its strictest: a field or a value that the guide does not show is rejected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NoReturn, cast
from zoneinfo import ZoneInfo

import msgspec

from service.simulator.api_error import ApiError, bad_request
from service.simulator.buckets import TimeGroup, exceeds_limit
from service.simulator.instants import parse_instant, parse_period

_REQUIRED = frozenset({"queryType", "dateFrom", "dateTo", "metrics", "filters", "groupBy", "timeGroup", "limit"})
_ALLOWED = _REQUIRED | {"metricsDelay", "nextPageToken"}
_FILTER = frozenset({"type", "dimension", "operator", "values"})
_STEPS = ("hourly", "daily", "monthly")
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class BuilderQuery:
    """A valid query.

    Attributes:
        start: dateFrom, in milliseconds since 1970.
        end: dateTo, in milliseconds since 1970.
        step: the requested granularity.
        limit: entries per page.
        flows: the flow ids that pass the filters; None for all flows.
        delay: the span before ``end`` whose records are ignored, in milliseconds.
        token: the page token of the request, or None.
        digest: a digest of the query without its page token.
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
    """Decode the JSON of a request; raises ApiError (400) if it is invalid."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise bad_request("The request could not be read: not valid JSON") from None


def digest_of(document: object) -> str:
    """Return a digest of a query without its page token; other documents are digested complete."""
    if isinstance(document, Mapping) and isinstance(builder := document.get("queryBuilder"), Mapping):
        document = {key: value for key, value in builder.items() if key != "nextPageToken"}
    return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:16]


def parse_query(document: object) -> BuilderQuery:
    """Parse the JSON of a request; raises ApiError (400) for the first rule that it breaks."""
    builder = _builder(document)
    _check_constants(builder)
    limit = builder["limit"]
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        _reject(f"limit must be a whole number from 1 to {MAX_LIMIT}")
    token = builder.get("nextPageToken")
    if "nextPageToken" in builder and not (isinstance(token, str) and token):
        _reject("nextPageToken must be a token from a response; leave it out for page one")
    start, end = _instant(builder, "dateFrom"), _instant(builder, "dateTo")
    if start >= end:
        _reject("dateFrom must be before dateTo")
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
    """Raise ApiError (400 ``granularityTooFine``) if the span is longer than the granularity allows."""
    if exceeds_limit(query.start, query.end, query.step, timezone, limits):
        raise granularity_too_fine()


def granularity_too_fine() -> ApiError:
    """Build the error with the guide's exact wording."""
    return bad_request("Invalid date range for the specified granularity", "granularityTooFine")


def cardinality_exceeded(combinations: int, maximum: int) -> ApiError:
    """Build the error for a query with too many (flow, bucket) pairs."""
    return bad_request(
        f"The cardinality of the query ({combinations} combinations) exceeds {maximum}; narrow it",
        "cardinality.exceeded",
    )


def _builder(document: object) -> Mapping[str, object]:
    """Return the object ``queryBuilder``, with all required fields and no unknown ones."""
    if not isinstance(document, Mapping):
        _reject("the body must be an object")
    if document.keys() != {"queryBuilder"}:
        _reject("the body must hold queryBuilder and nothing else")
    builder = document["queryBuilder"]
    if not isinstance(builder, Mapping):
        _reject("queryBuilder must be an object")
    if missing := _REQUIRED - builder.keys():
        _reject(f"queryBuilder lacks {', '.join(sorted(missing))}")
    if unknown := builder.keys() - _ALLOWED:
        _reject(f"queryBuilder does not know {', '.join(sorted(unknown))}")
    return builder


def _check_constants(builder: Mapping[str, object]) -> None:
    if builder["queryType"] != "routing/engagement":
        _reject('queryType must be "routing/engagement"')
    if builder["metrics"] != ["flow-outcomes"]:
        _reject('metrics must be ["flow-outcomes"]')
    if builder["groupBy"] != ["flow-id"]:
        _reject('groupBy must be ["flow-id"], and is never empty')
    if builder["timeGroup"] not in _STEPS:
        _reject(f"timeGroup must be one of {', '.join(_STEPS)}")


def _instant(builder: Mapping[str, object], key: str) -> int:
    value = builder[key]
    try:
        return parse_instant(cast("str", value))
    except (TypeError, ValueError):
        _reject(f"{key} must be an ISO 8601 instant that ends in Z")


def _delay(builder: Mapping[str, object]) -> int:
    if "metricsDelay" not in builder:
        return 0
    try:
        return parse_period(cast("str", builder["metricsDelay"]))
    except (TypeError, ValueError):
        _reject("metricsDelay must be an ISO 8601 period, such as PT1H")


def _flows(filters: object) -> frozenset[str] | None:
    """Return the flow ids that pass every filter."""
    if not isinstance(filters, Sequence) or isinstance(filters, str):
        _reject("filters must be a list")
    passing: frozenset[str] | None = None
    for one in filters:
        if not isinstance(one, Mapping) or one.keys() != _FILTER:
            _reject("a filter has type, dimension, operator and values, and nothing else")
        if (one["type"], one["dimension"], one["operator"]) != ("dimension", "flow-id", "eq"):
            _reject('a filter is of type "dimension", dimension "flow-id", operator "eq"')
        values = one["values"]
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(value, str) and value for value in values)
        ):
            _reject("a filter's values must be a list of at least one flow id")
        passing = frozenset(values) if passing is None else passing & frozenset(values)
    return passing


def _reject(message: str) -> NoReturn:
    raise bad_request(f"Invalid query: {message}")

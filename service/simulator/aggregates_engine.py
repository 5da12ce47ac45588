"""The rules of the flow-aggregates engine: what it takes for a query, and what it refuses.

After the published model of the query, at its strictest: fields that the model has and that are not simulated are
refused too, so that nobody relies on them unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from service.simulator.buckets import TimeGroup, too_fine
from service.simulator.instants import parse_instant
from service.simulator.refusal import Refusal, bad_request

DIMENSIONS = ("flowId", "flowOutcomeId", "flowOutcomeValue", "mediaType")
METRICS = frozenset(
    {
        "nFlow",
        "nFlowMilestone",
        "nFlowOutcome",
        "nFlowOutcomeFailed",
        "oFlowMilestone",
        "tFlow",
        "tFlowDisconnect",
        "tFlowExit",
        "tFlowOutcome",
    }
)
_REQUIRED = frozenset({"interval", "metrics"})
_ALLOWED = _REQUIRED | {"granularity", "timeZone", "groupBy", "filter"}
_STEPS: Mapping[str, TimeGroup] = {"PT1H": "hourly", "P1D": "daily", "P1M": "monthly"}
_PREDICATE = frozenset({"type", "dimension", "operator", "value"})
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class AggregatesQuery:
    """A query that keeps the rules.

    Attributes:
        start: of the interval, in milliseconds since 1970.
        end: likewise.
        step: None: the whole interval is one bucket.
        timezone: where days and months are cut.
        group_by: dimensions.
        metrics: names.
        flows: the flow ids that the filter lets through; None is all flows.
        page_size: groups a page of a job's results.
        digest: of all of it.
    """

    start: int
    end: int
    step: TimeGroup | None
    timezone: ZoneInfo
    group_by: tuple[str, ...]
    metrics: tuple[str, ...]
    flows: frozenset[str] | None
    page_size: int
    digest: str


def digest_of(document: object) -> str:
    """A digest of whatever was asked."""
    return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:16]


def parse_query(document: object, *, job: bool) -> AggregatesQuery:
    """A query out of a request's JSON; Refusal (400) with the first rule that it breaks.

    Args:
        document: the JSON.
        job: whether a job is begun with it, which has a pageSize.
    """
    if not isinstance(document, Mapping):
        _refuse("the body must be an object")
    if missing := _REQUIRED - document.keys():
        _refuse(f"{', '.join(sorted(missing))} must not be null", "constraint.validation")
    if unknown := document.keys() - (_ALLOWED | {"pageSize"} if job else _ALLOWED):
        _refuse(f"unknown fields: {', '.join(sorted(unknown))}")
    start, end = _interval(document["interval"])
    granularity = document.get("granularity")
    if granularity is not None and granularity not in _STEPS:
        _refuse(f"granularity: {granularity!r} is not simulated; there are {', '.join(_STEPS)}", "invalid.value")
    size = document.get("pageSize", 100)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_PAGE_SIZE:
        _refuse(f"pageSize must be a whole number from 1 to {MAX_PAGE_SIZE}", "constraint.validation")
    return AggregatesQuery(
        start=start,
        end=end,
        step=_STEPS[granularity] if isinstance(granularity, str) else None,
        timezone=_timezone(document.get("timeZone", "UTC")),
        group_by=_names(document.get("groupBy", []), frozenset(DIMENSIONS), "groupBy"),
        metrics=_names(document["metrics"], METRICS, "metrics", least=1),
        flows=None if document.get("filter") is None else _flows(document["filter"], nested=False),
        page_size=size,
        digest=digest_of(document),
    )


def check_granularity(query: AggregatesQuery, limits: tuple[int, int, int]) -> None:
    """Refusal (400) where the interval is longer than the granularity allows."""
    if query.step is not None and too_fine(query.start, query.end, query.step, query.timezone, limits):
        raise too_fine_an_answer()


def too_fine_an_answer() -> Refusal:
    """The refusal of an interval that is too long for its granularity."""
    return bad_request("The interval is too long for the specified granularity", "invalid.value")


def too_large(status: int = 400) -> Refusal:
    """The refusal of a query that would answer too much."""
    return Refusal(
        status,
        "response.entity.too.large",
        "The response is over the size limit. Reduce the interval, or add filters.",
    )


def _interval(value: object) -> tuple[int, int]:
    start, slash, end = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        ends = parse_instant(start), parse_instant(end)
    except ValueError:
        _refuse("interval must be two ISO 8601 instants that end in Z, with a slash between", "invalid.date")
    if not slash or ends[0] >= ends[1]:
        _refuse("the interval's start must be before its end", "invalid.date")
    return ends


def _timezone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(name if isinstance(name, str) and name else "?")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        _refuse(f"timeZone: {name!r} is no IANA time zone", "invalid.value")


def _names(value: object, known: frozenset[str], field: str, least: int = 0) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < least or len(set(map(str, value))) < len(value):
        _refuse(f"{field} must be a list of different names", "constraint.validation")
    for each in value:
        if each not in known:
            _refuse(f"{field}: {each!r} is not known; there are {', '.join(sorted(known))}", "invalid.value")
    return tuple(value)


def _flows(clause: object, *, nested: bool) -> frozenset[str] | None:
    """The flow ids that a filter or one of its clauses lets through; clauses do not nest further."""
    allowed = {"type", "predicates"} if nested else {"type", "predicates", "clauses"}
    if not isinstance(clause, Mapping) or not clause.keys() <= allowed or clause.get("type") not in ("and", "or"):
        _refuse("a filter has type and or or, predicates, and clauses one level deep", "constraint.validation")
    predicates, clauses = clause.get("predicates") or [], clause.get("clauses") or []
    if not isinstance(predicates, list) or not isinstance(clauses, list) or not predicates + clauses:
        _refuse("a filter needs predicates or clauses", "constraint.validation")
    kept = [_flow(predicate) for predicate in predicates]
    kept += [found for each in clauses if (found := _flows(each, nested=True)) is not None]
    return frozenset.union(*kept) if clause["type"] == "or" else frozenset.intersection(*kept)


def _flow(predicate: object) -> frozenset[str]:
    if not isinstance(predicate, Mapping) or predicate.keys() != _PREDICATE:
        _refuse("a predicate has type, dimension, operator and one value", "constraint.validation")
    if (predicate["type"], predicate["dimension"], predicate["operator"]) != ("dimension", "flowId", "matches"):
        _refuse('a predicate is of type "dimension", dimension "flowId", operator "matches"', "invalid.value")
    value = predicate["value"]
    if not isinstance(value, str) or not value:
        _refuse("a predicate's value must be one flow id", "invalid.value")
    return frozenset({value})


def _refuse(message: str, code: str = "bad.request") -> NoReturn:
    raise bad_request(f"Invalid query: {message}", code)

"""Queries of the flow-aggregates API: parsing and validation.

Follows the published model of the query at its strictest. Fields that the model has but the simulator does not
support are rejected, so that no client depends on them unnoticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from service.simulator.api_error import ApiError, bad_request
from service.simulator.buckets import TimeGroup, exceeds_limit
from service.simulator.flow_measures import METRICS
from service.simulator.instants import parse_instant

# fmt: off
DIMENSIONS = (
    "activeRouting", "activeSkillId", "addressFrom", "addressTo", "agentAssistantId", "agentBullseyeRing",
    "agentOwned", "agentRank", "agentScore", "ani", "assignerId", "authenticated", "canonicalExternalContactId",
    "conversationId", "conversationInitiator", "convertedFrom", "convertedTo", "customerParticipation",
    "deliveryStatus", "destinationAddress", "direction", "disconnectType", "divisionId", "dnis", "edgeId",
    "eligibleAgentCount", "endingLanguage", "entryReason", "entryType", "errorCode", "exitReason",
    "extendedDeliveryStatus", "externalContactId", "externalMediaCount", "externalOrganizationId",
    "externalTag", "firstQueue", "flaggedReason", "flowId", "flowInType", "flowMilestoneId", "flowName",
    "flowOutType", "flowOutcome", "flowOutcomeId", "flowOutcomeValue", "flowSubType", "flowType", "flowVersion",
    "groupId", "interactionType", "journeyActionId", "journeyActionMapId", "journeyActionMapVersion",
    "journeyCustomerId", "journeyCustomerIdType", "journeyCustomerSessionId", "journeyCustomerSessionIdType",
    "knowledgeBaseId", "mediaCount", "mediaType", "messageType", "originatingDirection", "outboundCampaignId",
    "outboundContactId", "outboundContactListId", "participantName", "peerId", "proposedAgentId", "provider",
    "purpose", "queueId", "recognitionFailureReason", "remote", "removedSkillId", "requestedLanguageId",
    "requestedRouting", "requestedRoutingSkillId", "roomId", "routingPriority", "routingRing", "routingRule",
    "routingRuleType", "scoredAgentId", "selectedAgentId", "selectedAgentRank", "selfServed", "sessionDnis",
    "sessionId", "skillExpressionId", "startingLanguage", "stationId", "teamId", "transferTargetAddress",
    "transferTargetName", "transferType", "usedRouting", "userId", "videoPresent", "waitingInteractionCount",
    "wrapUpCode",
)
# fmt: on
"""The dimensions of the SDK's ``FlowAggregateQueryPredicate``, by which a query can group."""

_REQUIRED = frozenset({"interval", "metrics"})
_ALLOWED = _REQUIRED | {"granularity", "timeZone", "groupBy", "filter"}
_STEPS: Mapping[str, TimeGroup] = {"PT1H": "hourly", "P1D": "daily", "P1M": "monthly"}
_PREDICATE = frozenset({"type", "dimension", "operator", "value"})
MAX_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class AggregatesQuery:
    """A valid query.

    Attributes:
        start: start of the interval, in milliseconds since 1970.
        end: end of the interval, in milliseconds since 1970.
        step: the granularity; None makes the interval one bucket.
        timezone: the time zone in which days and months begin.
        group_by: names of dimensions.
        metrics: names of metrics.
        flows: the flow ids that pass the filter; None for all flows.
        page_size: groups per page of a job's results.
        digest: a digest of the query.
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
    """Return a digest of a JSON document."""
    return sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()[:16]


def parse_query(document: object, *, job: bool) -> AggregatesQuery:
    """Parse the JSON of a request.

    Args:
        document: the JSON.
        job: whether the query starts a job; such a query may have a pageSize.

    Raises:
        ApiError: 400, for the first rule that the query breaks.
    """
    if not isinstance(document, Mapping):
        _reject("the body must be an object")
    if missing := _REQUIRED - document.keys():
        _reject(f"{', '.join(sorted(missing))} must not be null", "constraint.validation")
    if unknown := document.keys() - (_ALLOWED | {"pageSize"} if job else _ALLOWED):
        _reject(f"unknown fields: {', '.join(sorted(unknown))}")
    start, end = _interval(document["interval"])
    granularity = document.get("granularity")
    if granularity is not None and granularity not in _STEPS:
        _reject(f"granularity: {granularity!r} is not simulated; use one of {', '.join(_STEPS)}", "invalid.value")
    size = document.get("pageSize", 100)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_PAGE_SIZE:
        _reject(f"pageSize must be a whole number from 1 to {MAX_PAGE_SIZE}", "constraint.validation")
    return AggregatesQuery(
        start=start,
        end=end,
        step=_STEPS[granularity] if isinstance(granularity, str) else None,
        timezone=_timezone(document.get("timeZone", "UTC")),
        group_by=_names(document.get("groupBy", []), frozenset(DIMENSIONS), "groupBy"),
        metrics=_names(document["metrics"], METRICS, "metrics", minimum=1),
        flows=None if document.get("filter") is None else _flows(document["filter"], nested=False),
        page_size=size,
        digest=digest_of(document),
    )


def check_granularity(query: AggregatesQuery, limits: tuple[int, int, int]) -> None:
    """Raise ApiError (400) if the interval is longer than the granularity allows."""
    if query.step is not None and exceeds_limit(query.start, query.end, query.step, query.timezone, limits):
        raise granularity_too_fine()


def granularity_too_fine() -> ApiError:
    """Build the error for an interval that is too long for its granularity."""
    return bad_request("The interval is too long for the specified granularity", "invalid.value")


def too_large(status: int = 400) -> ApiError:
    """Build the error for a query whose response would be too large."""
    return ApiError(
        status,
        "response.entity.too.large",
        "The response is over the size limit. Reduce the interval, or add filters.",
    )


def _interval(value: object) -> tuple[int, int]:
    start, slash, end = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        bounds = parse_instant(start), parse_instant(end)
    except ValueError:
        _reject("interval must be two ISO 8601 instants that end in Z, with a slash between", "invalid.date")
    if not slash or bounds[0] >= bounds[1]:
        _reject("the interval's start must be before its end", "invalid.date")
    return bounds


def _timezone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(name if isinstance(name, str) and name else "?")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        _reject(f"timeZone: {name!r} is not an IANA time zone", "invalid.value")


def _names(value: object, known: frozenset[str], field: str, minimum: int = 0) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < minimum or len(set(map(str, value))) < len(value):
        _reject(f"{field} must be a list of different names", "constraint.validation")
    for each in value:
        if each not in known:
            _reject(f"{field}: {each!r} is unknown; use one of {', '.join(sorted(known))}", "invalid.value")
    return tuple(value)


def _flows(clause: object, *, nested: bool) -> frozenset[str] | None:
    """Return the flow ids that pass a filter or one of its clauses; clauses do not nest further."""
    allowed = {"type", "predicates"} if nested else {"type", "predicates", "clauses"}
    if not isinstance(clause, Mapping) or not clause.keys() <= allowed or clause.get("type") not in ("and", "or"):
        _reject("a filter has type and or or, predicates, and clauses one level deep", "constraint.validation")
    predicates, clauses = clause.get("predicates") or [], clause.get("clauses") or []
    if not isinstance(predicates, list) or not isinstance(clauses, list) or not predicates + clauses:
        _reject("a filter needs predicates or clauses", "constraint.validation")
    passing = [_flow(predicate) for predicate in predicates]
    passing += [flows for each in clauses if (flows := _flows(each, nested=True)) is not None]
    return frozenset.union(*passing) if clause["type"] == "or" else frozenset.intersection(*passing)


def _flow(predicate: object) -> frozenset[str]:
    if not isinstance(predicate, Mapping) or predicate.keys() != _PREDICATE:
        _reject("a predicate has type, dimension, operator and one value", "constraint.validation")
    if (predicate["type"], predicate["dimension"], predicate["operator"]) != ("dimension", "flowId", "matches"):
        _reject('a predicate is of type "dimension", dimension "flowId", operator "matches"', "invalid.value")
    value = predicate["value"]
    if not isinstance(value, str) or not value:
        _reject("a predicate's value must be one flow id", "invalid.value")
    return frozenset({value})


def _reject(message: str, code: str = "bad.request") -> NoReturn:
    raise bad_request(f"Invalid query: {message}", code)

"""The flow-aggregates dialect: ``POST /api/v2/analytics/flows/aggregates/query``, one answer, no paging.

Genesys Cloud's public API for flow outcomes. It tells an outcome by its id, how often it was reached and with what
value, for each (flow, outcome, value) group and each bucket, and says nothing where nothing happened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeGuard

import msgspec

from service.errors import ExtractionError, PageError, QueryTooLargeError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call
from service.genesys.error_mapping import EndpointPolicy
from service.model import Entry, Figure, Granularity, Page, Query, instant

PATH = "/api/v2/analytics/flows/aggregates/query"
PERMISSION, SCOPE = "Analytics > Flow Aggregate > View (analytics:flowAggregate:view)", "analytics:readonly"
TOTAL, FAILED = "nFlowOutcome", "nFlowOutcomeFailed"

_STEPS = {Granularity.HOURLY: "PT1H", Granularity.DAILY: "P1D", Granularity.MONTHLY: "P1M"}
_ABSENT = object()
_ANYTHING = "a group tells neither flow nor outcome: it may be a part of any figure"
_encode = msgspec.json.Encoder(order="deterministic").encode


def too_large(status: int, code: str, _message: str) -> type[ExtractionError] | None:
    """An answer past what the API sends is refused; one past what it can reckon in its time comes as a 504."""
    too_slow = status == HTTPStatus.GATEWAY_TIMEOUT
    return QueryTooLargeError if too_slow or code == "response.entity.too.large" else None


ASKING = EndpointPolicy(PERMISSION, SCOPE, too_large, tells_limit=True)


class _Stats(msgspec.Struct, gc=False):
    count: int


class _Metric(msgspec.Struct, gc=False):
    metric: str
    stats: _Stats


class _Datum(msgspec.Struct, gc=False):
    interval: str
    metrics: list[_Metric]


class _Element(msgspec.Struct, gc=False):
    """A group as nearly all of them come; any other goes the slow way."""

    group: dict[str, str]
    data: list[_Datum]


class _Answer(msgspec.Struct, gc=False):
    results: list[msgspec.Raw]
    cursor: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_element = msgspec.json.Decoder(_Element).decode


class FlowAggregates:
    """How the flow-aggregates API is asked and read, with synchronous queries."""

    by_id = True
    rules = ASKING

    def body(self, query: Query) -> dict[str, Any]:
        """The query, times in UTC with milliseconds, days and months cut where the org's time zone says.

        It asks for the span that is wanted and no further: this API has no delay to tell the engine.
        """
        body: dict[str, Any] = {
            "interval": f"{instant(query.span.start)}/{instant(query.span.end)}",
            "granularity": _STEPS[query.granularity],
            "timeZone": query.timezone,
            "groupBy": ["flowId", "flowOutcomeId", "flowOutcomeValue"],
            "metrics": [TOTAL, FAILED],
        }
        if query.flows:
            body["filter"] = {
                "type": "or",
                "predicates": [
                    {"type": "dimension", "dimension": "flowId", "operator": "matches", "value": flow}
                    for flow in sorted(query.flows)
                ],
            }
        return body

    def query_hash(self, query: Query) -> str:
        """SHA-256, in hex, of the org and the canonical query."""
        return hashlib.sha256(_encode([query.org, self.body(query)])).hexdigest()

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The one page of a scan.

        Raises:
            QueryTooLargeError: the answer would be too large, or take the API too long.
            PageError: a page at fault.
        """
        entries, cursor = decode(await call(ApiRequest("POST", PATH, _encode(self.body(query)), ASKING)))
        if cursor is not None:
            raise PageError("the answer goes on with a cursor, which a synchronous query has none of")
        yield Page(entries, more=False)


def decode(answer: bytes) -> tuple[list[Entry], str | None]:
    """One answer: its entries, and the cursor of the next one, None where there is none.

    An entry is one group in one bucket. A group may hold dimensions that were not asked for, so that several tell
    of one outcome: each is a part of its figure, named by all of the group but flow and outcome, and the merge
    adds the parts up. That it does so there, and not here, keeps memory flat where they come scattered over the
    pages of a job, and lets a part that came twice count once.

    Raises:
        PageError: not JSON, invalid UTF-8, no results.
    """
    try:
        text = answer.decode()
    except UnicodeDecodeError as error:
        raise PageError(f"the page is not valid UTF-8 at byte {error.start}") from None
    try:
        page = _decode_answer(answer)
    except (msgspec.DecodeError, RecursionError):
        return _decode_loosely(text)
    return [entry for element in page.results for entry in _entries(element)], _sound(page.cursor)


def _decode_loosely(text: str) -> tuple[list[Entry], str | None]:
    document = loose_json.document(text, "results")
    if document.elements is None:
        raise PageError("the page has no results, or they are no array")
    cursor = document.fields.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise PageError("the page's cursor is no text")
    return [entry for value, raw in document.elements for entry in _loose_entries(value, raw)], _sound(cursor)


def _sound(cursor: str | None) -> str | None:
    if cursor == "":
        raise PageError("the page's cursor is empty: it is neither the last page nor does it lead on")
    return cursor


def _entries(element: msgspec.Raw) -> Iterator[Entry]:
    text = bytes(element).decode()
    try:
        found = _decode_element(element)
    except (msgspec.DecodeError, RecursionError):
        yield from _loose_entries(loose_json.parse(text), text)
        return
    part = _part(found.group)
    for datum in found.data:
        counts: dict[str, object] = {each.metric: each.stats.count for each in datum.metrics}
        if len(counts) < len(datum.metrics):
            yield from _loose_entries(loose_json.parse(text), text)
            return
        if (entry := _entry(found.group, part, datum.interval, counts, text)) is not None:
            yield entry


def _loose_entries(value: object, text: str) -> list[Entry]:
    """The entries of a group, whatever it looks like; what cannot be read is left for the judge to refuse.

    Raises:
        PageError: it tells neither flow nor outcome, so that it may be a part of any figure.
    """
    group = value.get("group") if isinstance(value, dict) else None
    if not isinstance(group, dict):
        raise PageError(_ANYTHING)
    data = value.get("data") if isinstance(value, dict) else None
    part = _part(group)
    found = []
    for datum in data if isinstance(data, list) else [None]:
        interval = datum.get("interval") if isinstance(datum, dict) else None
        counts = _loose_counts(datum.get("metrics") if isinstance(datum, dict) else None)
        # what has no known shape is a count that cannot be told
        entry = _entry(group, part, interval, {TOTAL: None} if counts is None else counts, text)
        if entry is not None:
            found.append(entry)
    return found


def _loose_counts(metrics: object) -> dict[str, object] | None:
    """Counts by metric; None where they have no known shape. A metric that is told twice is not known."""
    if not isinstance(metrics, list):
        return None
    counts: dict[str, object] = {}
    for each in metrics:
        name = each.get("metric") if isinstance(each, dict) else None
        if not isinstance(name, str):
            return None
        stats = each.get("stats")
        count = stats.get("count") if isinstance(stats, dict) else None
        counts[name] = [counts[name], count] if name in counts and counts[name] != count else count
    return counts


def _entry(
    group: Mapping[str, Any], part: str, interval: object, counts: Mapping[str, object], text: str
) -> Entry | None:
    """One group in one bucket; None where it tells of no outcome.

    Raises:
        PageError: it tells neither flow nor outcome, so that it may be a part of any figure.
    """
    total, failed = counts.get(TOTAL, _ABSENT), counts.get(FAILED, _ABSENT)
    if total is _ABSENT and (failed is _ABSENT or _is_zero(failed)):
        return None
    if group.keys().isdisjoint(("flowId", "flowOutcomeId")):
        raise PageError(_ANYTHING)
    outcome = group.get("flowOutcomeId")
    figure = _figure(total, failed, group.get("flowOutcomeValue", _ABSENT))
    # Without an id the outcome cannot be told, and an empty one is refused for that.
    outcomes = {outcome if isinstance(outcome, str) else "": figure}
    return Entry(group.get("flowId"), _ends(interval), outcomes, text, part)


def _figure(total: object, failed: object, value: object) -> Figure:
    """Count, successes and failures.

    The value of the group tells which they are; nFlowOutcomeFailed has to say the same, else the engine counts in
    a way that is not understood, and the judge is given what he will refuse. What is neither success nor failure
    counts in the total alone. Where the engine did not split by value, successes are what did not fail.
    """
    if total is _ABSENT:
        return Figure(None, None, None, None if failed is _ABSENT else failed)
    if value is _ABSENT:
        failures = 0 if failed is _ABSENT else failed
        if _is_number(total) and _is_number(failures):
            return Figure(total, None, total - failures, failures)
        return Figure(total, None, failures, failures)
    success, failure = (total, 0) if value == "SUCCESS" else (0, total if value == "FAILURE" else 0)
    if failed is not _ABSENT and failed != failure:
        return Figure(total, None, value, failed)
    return Figure(total, None, success, failure)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_zero(value: object) -> bool:
    return _is_number(value) and value == 0


def _part(group: Mapping[str, Any]) -> str:
    """A digest of everything in a group but flow and outcome."""
    rest = {key: value for key, value in group.items() if key not in ("flowId", "flowOutcomeId")}
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=9).hexdigest()


def _ends(interval: object) -> tuple[object, object]:
    """The two sides of ``start/end``; anything else is left whole for the judge."""
    if isinstance(interval, str):
        start, slash, end = interval.partition("/")
        if slash:
            return start, end
    return interval, None

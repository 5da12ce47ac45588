"""The flow-aggregates dialect: ``POST /api/v2/analytics/flows/aggregates/query``, one response without paging.

Genesys Cloud's public API for flow outcomes (official Python SDK 269.0.0: ``FlowsApi``). It reports outcomes by
id: for each group of (flow, outcome, value) and each bucket, how often the outcome was reached. Where nothing
happened, the group, the bucket or the metric is absent; so may be ``results``, ``data`` and ``metrics``, which are
optional in its model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from http import HTTPStatus
from typing import Any, TypeGuard

import msgspec

from service.errors import ExtractionError, InvalidResponseError, QueryTooLargeError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call, encode, hash_query, split_interval
from service.genesys.error_mapping import EndpointPolicy
from service.model import Entry, Figure, Granularity, Page, Query, instant

PATH = "/api/v2/analytics/flows/aggregates/query"
PERMISSION = "Analytics > Flow Aggregate > View (analytics:flowAggregate:view)"
TOTAL, FAILED = "nFlowOutcome", "nFlowOutcomeFailed"
TOO_LARGE = "response.entity.too.large"

_PERIODS = {Granularity.HOURLY: "PT1H", Granularity.DAILY: "P1D", Granularity.MONTHLY: "P1M"}
_ABSENT = object()
_ERROR_MAX = 300
"""Characters of each of an error's fields."""
_NO_GROUP = "group has neither flowId nor flowOutcomeId, so it may be a part of any figure"


def _classify(status: int, code: str, _message: str) -> type[ExtractionError] | None:
    """The API answers 400 or 413 for a response that is too large, and 504 for one that takes too long."""
    too_slow = status == HTTPStatus.GATEWAY_TIMEOUT
    return QueryTooLargeError if too_slow or code == TOO_LARGE else None


POLICY = EndpointPolicy(PERMISSION, None, _classify, limit_headers=True)


class _Stats(msgspec.Struct, gc=False):
    count: int


class _Metric(msgspec.Struct, gc=False):
    metric: str
    stats: _Stats


class _Datum(msgspec.Struct, gc=False):
    interval: str
    metrics: list[_Metric]


class _Element(msgspec.Struct, gc=False):
    """A group in its usual form; any other is decoded loosely."""

    group: dict[str, str]
    data: list[_Datum]


class _Results(msgspec.Struct, gc=False):
    results: list[msgspec.Raw]
    cursor: str | None = None


_decode_results = msgspec.json.Decoder(_Results).decode
_decode_element = msgspec.json.Decoder(_Element).decode


class FlowAggregates:
    """The flow-aggregates API with synchronous queries."""

    by_id = True
    policy = POLICY

    def body(self, query: Query) -> dict[str, Any]:
        """The body of the query: instants in UTC with milliseconds, days and months cut in the org's time zone.

        It requests the query's own span, since this API has no ``metricsDelay``.
        """
        body: dict[str, Any] = {
            "interval": f"{instant(query.span.start)}/{instant(query.span.end)}",
            "granularity": _PERIODS[query.granularity],
            "timeZone": query.timezone,
            "groupBy": ["flowId", "flowOutcomeId", "flowOutcomeValue"],
            "metrics": [TOTAL],
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
        """SHA-256, in hex, of the org and the body of the query."""
        return hash_query(query.org, self.body(query))

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The only page of a scan.

        Raises:
            QueryTooLargeError: the response would be too large, or take the API too long.
            InvalidResponseError: an invalid page.
        """
        response = await call(ApiRequest("POST", PATH, encode(self.body(query)), POLICY, starts_scan=True))
        entries, cursor = decode(response.body)
        if cursor is not None:
            raise InvalidResponseError("the response to a synchronous query has a cursor")
        yield Page(entries, more=False, date=response.date)


def decode(body: bytes) -> tuple[list[Entry], str | None]:
    """The entries of one response, and the cursor of the next; None on the last.

    An entry is one group in one bucket. A group may have dimensions that were not requested, such as ``mediaType``
    (developer documentation), so that several groups report one outcome. Each is a part of its figure, identified
    by all dimensions but flow and outcome; the merge adds the parts up. Adding them there keeps memory flat where
    they are spread over the pages of a job, and counts a repeated part once.

    Raises:
        InvalidResponseError: invalid JSON or UTF-8, or ``results`` that are no array.
    """
    text = loose_json.decode_utf8(body)
    try:
        page = _decode_results(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_loosely(text)
    return [entry for element in page.results for entry in _entries(element)], _checked(page.cursor)


def _decode_loosely(text: str) -> tuple[list[Entry], str | None]:
    document = loose_json.document(text, "results")
    if document.elements is None:
        _check_empty(document.fields)
    cursor = document.fields.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidResponseError("the page's cursor is not text")
    elements = document.elements or []
    return [entry for value, raw in elements for entry in _loose_entries(value, raw)], _checked(cursor)


def _check_empty(fields: Mapping[str, Any]) -> None:
    """Check that an object without an array of results is an empty response: results absent or null, no error."""
    if fields.get("results") is not None:
        raise InvalidResponseError("the page's results are not an array")
    if error := [fields[key] for key in ("status", "code", "message") if fields.get(key) is not None]:
        text = ": ".join(str(each)[:_ERROR_MAX] for each in error)
        raise InvalidResponseError(f"page is an error in place of results: {text}")


def _checked(cursor: str | None) -> str | None:
    if cursor == "":
        raise InvalidResponseError("the page's cursor is empty")
    return cursor


def _entries(element: msgspec.Raw) -> Iterator[Entry]:
    text = bytes(element).decode()
    try:
        decoded = _decode_element(element)
    except (msgspec.DecodeError, RecursionError):
        yield from _loose_entries(loose_json.parse(text), text)
        return
    part = _part(decoded.group)
    for datum in decoded.data:
        counts: dict[str, object] = {each.metric: each.stats.count for each in datum.metrics}
        if len(counts) < len(datum.metrics):
            yield from _loose_entries(loose_json.parse(text), text)
            return
        if (entry := _entry(decoded.group, part, datum.interval, counts, text)) is not None:
            yield entry


def _loose_entries(value: object, text: str) -> list[Entry]:
    """The entries of a group in any form; what cannot be read is left for normalisation to reject.

    A group without data, and a datum without metrics, report nothing.

    Raises:
        InvalidResponseError: it has neither flow nor outcome, so it may be a part of any figure.
    """
    group = value.get("group") if isinstance(value, dict) else None
    if not isinstance(group, dict):
        raise InvalidResponseError(_NO_GROUP)
    data = value.get("data") if isinstance(value, dict) else None
    if data is None:
        return []
    part = _part(group)
    entries = []
    for datum in data if isinstance(data, list) else [None]:
        if isinstance(datum, dict) and datum.get("metrics") is None:
            continue
        interval = datum.get("interval") if isinstance(datum, dict) else None
        counts = _loose_counts(datum.get("metrics") if isinstance(datum, dict) else None)
        entry = _entry(group, part, interval, {TOTAL: None} if counts is None else counts, text)
        if entry is not None:
            entries.append(entry)
    return entries


def _loose_counts(metrics: object) -> dict[str, object] | None:
    """Counts by metric; None where they have no known form. A metric with two different counts has both."""
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
    """One group in one bucket; None where it reports no outcome.

    Raises:
        InvalidResponseError: it has neither flow nor outcome, so it may be a part of any figure.
    """
    total, failed = counts.get(TOTAL, _ABSENT), counts.get(FAILED, _ABSENT)
    if total is _ABSENT and (failed is _ABSENT or _is_zero(failed)):
        return None
    if group.keys().isdisjoint(("flowId", "flowOutcomeId")):
        raise InvalidResponseError(_NO_GROUP)
    outcome = group.get("flowOutcomeId")
    figure = _figure(total, failed, group.get("flowOutcomeValue", _ABSENT))
    # An outcome without an id is unknown; normalisation rejects the empty id.
    outcomes = {outcome if isinstance(outcome, str) else "": figure}
    return Entry(group.get("flowId"), split_interval(interval), outcomes, text, part)


def _figure(total: object, failed: object, value: object) -> Figure:
    """Count, successes and failures.

    The group's value says whether they are successes or failures (official Python SDK 269.0.0: SUCCESS, FAILURE or
    UNKNOWN). A value that is neither counts in the total only. nFlowOutcomeFailed is not requested. If it is sent
    without a value, successes are those that did not fail; if it contradicts the value, the figure is such that
    normalisation makes the split null.
    """
    if total is _ABSENT:
        return Figure(None, None, None, None if failed is _ABSENT else failed)
    if value is None or value is _ABSENT:
        if failed is _ABSENT:
            return Figure(total)
        if _is_number(total) and _is_number(failed):
            return Figure(total, None, total - failed, failed)
        return Figure(total, None, failed, failed)
    success, failure = (total, 0) if value == "SUCCESS" else (0, total if value == "FAILURE" else 0)
    if failed is not _ABSENT and failed != failure:
        return Figure(total, None, value, failed)
    return Figure(total, None, success, failure)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_zero(value: object) -> bool:
    return _is_number(value) and value == 0


def _part(group: Mapping[str, Any]) -> str:
    """A digest of all of a group's dimensions but flow and outcome."""
    rest = {key: value for key, value in group.items() if key not in ("flowId", "flowOutcomeId")}
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=9).hexdigest()

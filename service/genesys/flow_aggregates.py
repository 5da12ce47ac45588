"""The flow-aggregates dialect: ``POST /api/v2/analytics/flows/aggregates/query``, one response without paging.

Genesys Cloud's public API for flow outcomes (official Python SDK 269.0.0: ``FlowsApi``). It reports statistics for
each group and each bucket; ``measures`` has the groups and the metrics. Where nothing happened, the group, the
bucket or the metric is absent; so may be ``results``, ``data`` and ``metrics``, which are optional in its model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from service.errors import ExtractionError, InvalidResponseError, QueryTooLargeError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call, encode, hash_query, split_interval
from service.genesys.error_mapping import EndpointPolicy
from service.genesys.measures import REQUESTS, Stats, figures
from service.model import DurationStats, Entry, Granularity, Measure, Page, Query, instant

PATH = "/api/v2/analytics/flows/aggregates/query"
PERMISSION = "Analytics > Flow Aggregate > View (analytics:flowAggregate:view)"
TOO_LARGE = "response.entity.too.large"

_PERIODS = {Granularity.HOURLY: "PT1H", Granularity.DAILY: "P1D", Granularity.MONTHLY: "P1M"}
_ERROR_MAX = 300
"""Characters of each of an error's fields."""


def _classify(_status: int, code: str, _message: str) -> type[ExtractionError] | None:
    """The API answers 400 or 413 for a response that is too large."""
    return QueryTooLargeError if code == TOO_LARGE else None


POLICY = EndpointPolicy(PERMISSION, None, _classify, limit_headers=True)


class _Stats(DurationStats, gc=False):
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
            "groupBy": [*REQUESTS[query.measure].group_by, *query.group_by],
            "metrics": list(REQUESTS[query.measure].metrics),
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
            QueryTooLargeError: the response would be too large.
            InvalidResponseError: an invalid page.
        """
        response = await call(ApiRequest("POST", PATH, encode(self.body(query)), POLICY, starts_scan=True))
        entries, cursor = decode(response.body, query.measure, query.group_by, response.status)
        if cursor is not None:
            raise InvalidResponseError("the response to a synchronous query has a cursor")
        yield Page(entries, more=False, date=response.date)


def decode(
    body: bytes,
    measure: Measure = Measure.OUTCOMES,
    group_by: Collection[str] = (),
    status: int = HTTPStatus.OK,
) -> tuple[list[Entry], str | None]:
    """The entries of one response, and the cursor of the next; None on the last.

    An entry is one group in one bucket. A group may have dimensions that were not requested, such as ``mediaType``
    (developer documentation), so that several groups report one figure. Each is a part of it, identified by all
    dimensions that do not identify the figure; the merge adds the parts up. Adding them there keeps memory flat
    where they are spread over the pages of a job, and counts a repeated part once.

    Args:
        body: the response.
        measure: what was requested.
        group_by: the dimensions by which the query is grouped.
        status: its status, of 2xx.

    Raises:
        InvalidResponseError: invalid JSON or UTF-8, ``results`` that are no array, a 202 without any.
    """
    text = loose_json.decode_utf8(body)
    groups = _Groups(measure, group_by)
    try:
        page = _decode_results(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_loosely(text, groups, status)
    return [entry for element in page.results for entry in groups.entries(element)], _checked(page.cursor)


def _decode_loosely(text: str, groups: _Groups, status: int) -> tuple[list[Entry], str | None]:
    document = loose_json.document(text, "results")
    if document.elements is None:
        _check_empty(document.fields, status)
    cursor = document.fields.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidResponseError("the page's cursor is not text")
    elements = document.elements or []
    return [entry for value, raw in elements for entry in groups.loose_entries(value, raw)], _checked(cursor)


def _check_empty(fields: Mapping[str, Any], status: int) -> None:
    """Check that an object without results is an empty response: status 200, results absent or null, no error."""
    if fields.get("results") is not None:
        raise InvalidResponseError("the page's results are not an array")
    if error := [fields[key] for key in ("status", "code", "message") if fields.get(key) is not None]:
        text = ": ".join(str(each)[:_ERROR_MAX] for each in error)
        raise InvalidResponseError(f"page is an error in place of results: {text}")
    if status != HTTPStatus.OK:
        raise InvalidResponseError(f"HTTP {status} without results, which are not there yet")


def _checked(cursor: str | None) -> str | None:
    if cursor == "":
        raise InvalidResponseError("the page's cursor is empty")
    return cursor


class _Groups:
    """Reads the groups of one query's responses.

    Args:
        measure: what was requested.
        group_by: the dimensions by which the query is grouped.
    """

    def __init__(self, measure: Measure, group_by: Collection[str]) -> None:
        self._measure = measure
        self._group_by = tuple(group_by)
        self._key = REQUESTS[measure].key

    def entries(self, element: msgspec.Raw) -> Iterator[Entry]:
        """The entries of a group."""
        text = bytes(element).decode()
        try:
            decoded = _decode_element(element)
        except (msgspec.DecodeError, RecursionError):
            yield from self.loose_entries(loose_json.parse(text), text)
            return
        part, dimensions = self._part(decoded.group), self._dimensions(decoded.group)
        for datum in decoded.data:
            stats: Stats = {each.metric: each.stats for each in datum.metrics}
            if len(stats) < len(datum.metrics):
                yield from self.loose_entries(loose_json.parse(text), text)
                return
            if found := figures(self._measure, decoded.group, stats):
                interval = split_interval(datum.interval)
                yield Entry(decoded.group.get("flowId"), interval, found, text, part, dimensions)

    def loose_entries(self, value: object, text: str) -> list[Entry]:
        """The entries of a group in any form; what cannot be read is left for normalisation to reject.

        A group without data, and a datum without metrics, report nothing.

        Raises:
            InvalidResponseError: it has no dimensions.
        """
        group = value.get("group") if isinstance(value, dict) else None
        if not isinstance(group, dict):
            raise InvalidResponseError("a result has no group")
        data = value.get("data") if isinstance(value, dict) else None
        if data is None:
            return []
        part, dimensions = self._part(group), self._dimensions(group)
        entries = []
        for datum in data if isinstance(data, list) else [None]:
            if isinstance(datum, dict) and datum.get("metrics") is None:
                continue
            interval = datum.get("interval") if isinstance(datum, dict) else None
            stats = _loose_stats(datum.get("metrics") if isinstance(datum, dict) else None)
            if found := figures(self._measure, group, stats):
                flow = group.get("flowId")
                entries.append(Entry(flow, split_interval(interval), found, text, part, dimensions))
        return entries

    def _part(self, group: Mapping[str, Any]) -> str:
        """A digest of all of a group's dimensions that do not identify its figure."""
        rest = {key: value for key, value in group.items() if key not in self._key}
        return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=9).hexdigest()

    def _dimensions(self, group: Mapping[str, Any]) -> dict[str, object]:
        """The dimensions by which the query is grouped; None where the group lacks one."""
        return {name: group.get(name) for name in self._group_by}


def _loose_stats(metrics: object) -> Stats | None:
    """Statistics by metric; None where they have no known form. A metric with two different ones has both."""
    if not isinstance(metrics, list):
        return None
    found: dict[str, DurationStats] = {}
    for each in metrics:
        name = each.get("metric") if isinstance(each, dict) else None
        if not isinstance(name, str):
            return None
        stats = each.get("stats")
        fields = stats if isinstance(stats, dict) else {}
        read = DurationStats(*(fields.get(key) for key in ("count", "sum", "min", "max")))
        if name in found and found[name] != read:
            read = DurationStats([found[name].count, read.count])
        found[name] = read
    return found

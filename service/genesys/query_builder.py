"""The query-builder dialect: ``POST /api/v2/analytics/query-builder/query``, paged by an opaque token.

Requests, pages and errors follow the operator's guide for this endpoint; neither the official Python SDK 269.0.0
nor the published API description has it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from functools import cache, partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import isodate
import msgspec

from service.errors import InvalidResponseError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call, PagingCheck, encode, hash_query, split_interval
from service.genesys.error_mapping import DEFAULT_POLICY
from service.model import COUNT_MAX, Entry, Figure, Granularity, Page, Query, ValidEntry, ValidFigure, instant

PATH = "/api/v2/analytics/query-builder/query"
_UNKNOWN_FORM = "page has no data and no other known form"


class _Figure(ValidFigure, gc=False, rename={"outcome_count": "count", "percent_of_total": "percentOfTotal"}.get):
    outcome_count: Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
    percent_of_total: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class _Metrics(msgspec.Struct, gc=False):
    outcomes: dict[str, _Figure] = msgspec.field(name="flow-outcomes")


class _Group(msgspec.Struct, gc=False):
    flow_id: str = msgspec.field(name="flow-id")


class _Element(msgspec.Struct, gc=False):
    """An entry in its usual form; any other is decoded loosely."""

    group: _Group
    interval: str
    metrics: _Metrics


class _Page(msgspec.Struct, gc=False):
    data: list[_Element]
    token: msgspec.Raw = msgspec.field(name="nextPageToken")


class _SplitPage(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    token: msgspec.Raw = msgspec.field(name="nextPageToken")


_decode_page = msgspec.json.Decoder(_Page).decode
_split_page = msgspec.json.Decoder(_SplitPage).decode
_decode_element = msgspec.json.Decoder(_Element).decode


class QueryBuilder:
    """The query-builder API."""

    by_id = False
    policy = DEFAULT_POLICY

    def body(self, query: Query) -> dict[str, Any]:
        """The body of the request for page one: instants in UTC with milliseconds."""
        filters = []
        if query.flows:
            filters.append(
                {"type": "dimension", "dimension": "flow-id", "operator": "eq", "values": sorted(query.flows)}
            )
        builder: dict[str, Any] = {
            "queryType": "routing/engagement",
            "dateFrom": instant(query.request_span.start),
            "dateTo": instant(query.request_span.end),
            "metrics": ["flow-outcomes"],
            "filters": filters,
            "groupBy": ["flow-id"],
            "timeGroup": query.granularity.value,
            "limit": query.page_size,
        }
        if query.metrics_delay is not None:
            # The engine ignores the records of this span before dateTo. On a settled window that would drop the
            # last hour for good, so the plan sets it only together with a later dateTo.
            builder["metricsDelay"] = isodate.duration_isoformat(query.metrics_delay)
        return {"queryBuilder": builder}

    def query_hash(self, query: Query) -> str:
        """SHA-256, in hex, of the org and the canonical query without its page token."""
        return hash_query(query.org, self.body(query))

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one scan, up to the one whose ``nextPageToken`` is null.

        Raises:
            CursorExpiredError: the token has expired. The pages so far are void; restart from page one.
            InvalidResponseError: an invalid page, or paging without an end.
        """
        body = self.body(query)
        paging = PagingCheck("nextPageToken")
        token: bytes | None = None
        while True:
            response = await call(ApiRequest("POST", PATH, encode(body), starts_scan=token is None))
            entries, token = decode(response.body, query)
            if token is not None:
                paging.add(response.body, token, empty=not entries)
            date = response.date
            del response  # up to 64 MiB
            yield Page(entries, more=token is not None, date=date)
            if token is None:
                return
            body["queryBuilder"]["nextPageToken"] = msgspec.Raw(token)


def decode(body: bytes, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    """The entries of one page, and the next token as JSON text; None on the last page.

    Raises:
        InvalidResponseError: invalid JSON or UTF-8, an unknown form, ``flow-outcomes`` an array, no token field.
    """
    text = loose_json.decode_utf8(body)
    try:
        page = _decode_page(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_by_element(body, text, query)
    texts = cache(partial(_element_texts, body))
    return [_valid_entry(element, texts, index) for index, element in enumerate(page.data)], _token(page.token)


def _decode_by_element(body: bytes, text: str, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    """A page of which some entry is not in its usual form."""
    try:
        page = _split_page(body)
    except (msgspec.DecodeError, RecursionError):
        return _decode_loosely(text, query)
    texts = [bytes(element).decode() for element in page.data]
    return [_decode_entry(element, texts, index) for index, element in enumerate(page.data)], _token(page.token)


def _decode_entry(element: msgspec.Raw, texts: list[str], index: int) -> Entry | ValidEntry:
    try:
        return _valid_entry(_decode_element(element), lambda: texts, index)
    except (msgspec.DecodeError, RecursionError):
        return _loose_entry(loose_json.parse(texts[index]), texts[index])


def _valid_entry(element: _Element, texts: Callable[[], list[str]], index: int) -> ValidEntry:
    interval = split_interval(element.interval)
    return ValidEntry(element.group.flow_id, interval, element.metrics.outcomes, texts, index)


def _element_texts(body: bytes) -> list[str]:
    return [bytes(element).decode() for element in _split_page(body).data]


def _token(raw: msgspec.Raw) -> bytes | None:
    token = bytes(raw)
    return None if token == b"null" else token


def _decode_loosely(text: str, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    document = loose_json.document(text)
    raw_token = document.raw.get("nextPageToken")
    token = raw_token.encode() if raw_token not in (None, "null") else None
    if document.elements is not None:
        if raw_token is None:
            raise InvalidResponseError("page truncated: it has no nextPageToken")
        return [_loose_entry(value, raw) for value, raw in document.elements], token
    if "data" in document.fields:
        raise InvalidResponseError("the page's data is not an array")
    if token is not None or not isinstance(document.fields.get("metrics"), dict):
        raise InvalidResponseError(_UNKNOWN_FORM)
    return [_bare_entry(document.fields, text, query)], None


def _bare_entry(fields: dict[str, Any], text: str, query: Query) -> Entry:
    """The guide's bare ``{"metrics": {"flow-outcomes": {…}}}``, which has neither flow nor bucket."""
    if "flow-outcomes" not in fields["metrics"]:
        raise InvalidResponseError(_UNKNOWN_FORM)
    if len(query.flows) != 1 or not _is_one_bucket(query):
        raise InvalidResponseError(
            "page has neither flow nor bucket, and the query covers more than one flow or one bucket"
        )
    interval = (instant(query.request_span.start), instant(query.request_span.end))
    return Entry(query.flows[0], interval, _loose_outcomes(fields["metrics"]), text.strip())


def _is_one_bucket(query: Query) -> bool:
    start, end = query.request_span
    if query.granularity is Granularity.HOURLY:
        return end - start <= timedelta(hours=1)  # shorter beside an offset change of half an hour
    first = start.astimezone(ZoneInfo(query.timezone))
    last = end.astimezone(ZoneInfo(query.timezone))
    if query.granularity is Granularity.DAILY:
        return last.date() - first.date() == timedelta(days=1)
    return (last.year - first.year) * 12 + last.month - first.month == 1


def _loose_entry(value: object, text: str) -> Entry:
    if not isinstance(value, dict):
        return Entry(None, (None, None), None, text)
    group = value.get("group")
    flow_id = group.get("flow-id") if isinstance(group, dict) else None
    if flow_id is None:
        flow_id = value.get("flow-id")
    interval = value.get("interval")
    ends = (value.get("dateFrom"), value.get("dateTo")) if interval is None else split_interval(interval)
    return Entry(flow_id, ends, _loose_outcomes(value.get("metrics")), text)


def _loose_outcomes(metrics: object) -> Mapping[str, Figure] | None:
    outcomes = metrics.get("flow-outcomes") if isinstance(metrics, dict) else None
    if isinstance(outcomes, list):
        raise InvalidResponseError("flow-outcomes is an array, not an object")
    if not isinstance(outcomes, dict):
        return None
    return {name: _loose_figure(figure) for name, figure in outcomes.items()}


def _loose_figure(figure: object) -> Figure:
    if not isinstance(figure, dict):
        return Figure(None)
    return Figure(figure.get("count"), figure.get("percentOfTotal"))

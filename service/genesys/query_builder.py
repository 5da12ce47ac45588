"""The query-builder dialect: ``POST /api/v2/analytics/query-builder/query``, paged by an opaque token.

Request, page and errors are those of the operator's guide for this endpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from functools import cache, partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import isodate
import msgspec

from service.errors import PageError
from service.genesys import loose_json
from service.genesys.dialect import ApiRequest, Call
from service.genesys.error_mapping import USUAL
from service.model import COUNT_MAX, Entry, Figure, Granularity, Page, Query, ValidEntry, ValidFigure, instant

PATH = "/api/v2/analytics/query-builder/query"
_DIGEST_BYTES = 16


class _Figure(ValidFigure, gc=False, rename={"outcome_count": "count", "percent_of_total": "percentOfTotal"}.get):
    outcome_count: Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
    percent_of_total: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class _Metrics(msgspec.Struct, gc=False):
    outcomes: dict[str, _Figure] = msgspec.field(name="flow-outcomes")


class _Group(msgspec.Struct, gc=False):
    flow_id: str = msgspec.field(name="flow-id")


class _Element(msgspec.Struct, gc=False):
    """An entry as nearly all of them come; any other goes the slow way."""

    group: _Group
    interval: str
    metrics: _Metrics


class _Page(msgspec.Struct, gc=False):
    data: list[_Element]
    token: msgspec.Raw = msgspec.field(name="nextPageToken")


class _CutPage(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]
    token: msgspec.Raw = msgspec.field(name="nextPageToken")


_decode_page = msgspec.json.Decoder(_Page).decode
_cut_page = msgspec.json.Decoder(_CutPage).decode
_decode_element = msgspec.json.Decoder(_Element).decode
_encode = msgspec.json.Encoder(order="deterministic").encode


class QueryBuilder:
    """How the query-builder API is asked and read."""

    by_id = False
    rules = USUAL

    def body(self, query: Query) -> dict[str, Any]:
        """The query as page one sends it, times in UTC with milliseconds."""
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
            # The engine ignores the records of this span before dateTo. Sent on a settled window it would cut the
            # window's last hour out for good, so it goes only where the plan asked for it and asked further.
            builder["metricsDelay"] = isodate.duration_isoformat(query.metrics_delay)
        return {"queryBuilder": builder}

    def query_hash(self, query: Query) -> str:
        """SHA-256, in hex, of the org and the canonical query without its page token."""
        return hashlib.sha256(_encode([query.org, self.body(query)])).hexdigest()

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one scan, up to the one whose next token is null.

        Raises:
            CursorExpiredError: the cursor has expired; what was yielded is void, and the caller begins again.
            PageError: a page at fault, or a token that came twice.
        """
        body = self.body(query)
        seen: set[bytes] = set()  # digests, so that memory stays flat however long the tokens are
        while True:
            answer = await call(ApiRequest("POST", PATH, _encode(body)))
            entries, token = decode(answer, query)
            del answer
            yield Page(entries, more=token is not None)
            if token is None:
                return
            digest = hashlib.blake2b(token, digest_size=_DIGEST_BYTES).digest()
            if digest in seen:
                raise PageError("the same nextPageToken came twice in one scan")
            seen.add(digest)
            body["queryBuilder"]["nextPageToken"] = msgspec.Raw(token)


def decode(answer: bytes, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    """One page: its entries, and the next token as JSON text, None where the scan ends here.

    Raises:
        PageError: not JSON, invalid UTF-8, no known shape, ``flow-outcomes`` an array, no token field.
    """
    try:
        text = answer.decode()
    except UnicodeDecodeError as error:
        raise PageError(f"the page is not valid UTF-8 at byte {error.start}") from None
    try:
        page = _decode_page(answer)
    except (msgspec.DecodeError, RecursionError):
        return _decode_in_pieces(answer, text, query)
    texts = cache(partial(_cut, answer))
    return [_sound(found, texts, index) for index, found in enumerate(page.data)], _token(page.token)


def _decode_in_pieces(answer: bytes, text: str, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    """A page in which some entry is not as usual: each decoded by itself."""
    try:
        page = _cut_page(answer)
    except (msgspec.DecodeError, RecursionError):
        return _decode_loosely(text, query)
    texts = [bytes(element).decode() for element in page.data]
    return [_piece(element, texts, index) for index, element in enumerate(page.data)], _token(page.token)


def _piece(element: msgspec.Raw, texts: list[str], index: int) -> Entry | ValidEntry:
    try:
        return _sound(_decode_element(element), lambda: texts, index)
    except (msgspec.DecodeError, RecursionError):
        return _loose_entry(loose_json.parse(texts[index]), texts[index])


def _sound(found: _Element, texts: Callable[[], list[str]], index: int) -> ValidEntry:
    return ValidEntry(found.group.flow_id, _ends(found.interval), found.metrics.outcomes, texts, index)


def _cut(answer: bytes) -> list[str]:
    """The texts of a page's elements."""
    return [bytes(element).decode() for element in _cut_page(answer).data]


def _token(told: msgspec.Raw) -> bytes | None:
    token = bytes(told)
    return None if token == b"null" else token


def _decode_loosely(text: str, query: Query) -> tuple[list[Entry | ValidEntry], bytes | None]:
    document = loose_json.document(text)
    raw_token = document.raw.get("nextPageToken")
    token = raw_token.encode() if raw_token not in (None, "null") else None
    if document.elements is not None:
        if raw_token is None:
            raise PageError("the page has no nextPageToken: it was cut short")
        return [_loose_entry(value, raw) for value, raw in document.elements], token
    if "data" in document.fields:
        raise PageError("the page's data is no array")
    if token is not None or not isinstance(document.fields.get("metrics"), dict):
        raise PageError("the page has no data, and no other known shape")
    return [_bare_entry(document.fields, text, query)], None


def _bare_entry(fields: dict[str, Any], text: str, query: Query) -> Entry:
    """The guide's bare ``{"metrics": {"flow-outcomes": {…}}}``, which says neither flow nor bucket."""
    if "flow-outcomes" not in fields["metrics"]:
        raise PageError("the page has no data, and no other known shape")
    if len(query.flows) != 1 or not _is_one_bucket(query):
        raise PageError(
            "the page says neither flow nor bucket, and the query does not name exactly one flow over one bucket"
        )
    interval = (instant(query.request_span.start), instant(query.request_span.end))
    return Entry(query.flows[0], interval, _loose_outcomes(fields["metrics"]), text.strip())


def _is_one_bucket(query: Query) -> bool:
    start, end = query.request_span
    if query.granularity is Granularity.HOURLY:
        return end - start == timedelta(hours=1)
    here = start.astimezone(ZoneInfo(query.timezone))
    there = end.astimezone(ZoneInfo(query.timezone))
    if query.granularity is Granularity.DAILY:
        return there.date() - here.date() == timedelta(days=1)
    return (there.year - here.year) * 12 + there.month - here.month == 1


def _loose_entry(value: object, text: str) -> Entry:
    if not isinstance(value, dict):
        return Entry(None, (None, None), None, text)
    group = value.get("group")
    flow_id = group.get("flow-id") if isinstance(group, dict) else None
    if flow_id is None:
        flow_id = value.get("flow-id")
    interval = value.get("interval")
    ends = (value.get("dateFrom"), value.get("dateTo")) if interval is None else _ends(interval)
    return Entry(flow_id, ends, _loose_outcomes(value.get("metrics")), text)


def _loose_outcomes(metrics: object) -> Mapping[str, Figure] | None:
    outcomes = metrics.get("flow-outcomes") if isinstance(metrics, dict) else None
    if isinstance(outcomes, list):
        raise PageError("flow-outcomes is an array, not an object")
    if not isinstance(outcomes, dict):
        return None
    return {name: _loose_figure(figure) for name, figure in outcomes.items()}


def _loose_figure(figure: object) -> Figure:
    if not isinstance(figure, dict):
        return Figure(None)
    return Figure(figure.get("count"), figure.get("percentOfTotal"))


def _ends(interval: object) -> tuple[object, object]:
    """The two sides of ``start/end``; anything else is left whole for the judge."""
    if isinstance(interval, str):
        start, slash, end = interval.partition("/")
        if slash:
            return start, end
    return interval, None

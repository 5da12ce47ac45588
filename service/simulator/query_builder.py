"""The query-builder dialect: answers a query with a page, as the guide of the query-builder API shows them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec

from service.simulator.api_error import ApiError
from service.simulator.builder_query import (
    BuilderQuery,
    cardinality_exceeded,
    check_granularity,
    granularity_too_fine,
    parse_query,
)
from service.simulator.fault_injection import refuse_results
from service.simulator.faults import RequestFaults
from service.simulator.instants import Now
from service.simulator.organisation import CachedPage, LiveOrg
from service.simulator.page_corruption import corrupt_page
from service.simulator.pages import PageSlice, Position, Scan, open_scan

PATH = "/api/v2/analytics/query-builder/query"

_UTC = ZoneInfo("UTC")
_encode = msgspec.json.Encoder().encode


def requested_page(org: LiveOrg, document: object) -> int:
    """Return the number of the page that a request is for, from 1; 1 if the request is invalid."""
    try:
        token = document["queryBuilder"]["nextPageToken"]  # type: ignore[index]
    except (TypeError, KeyError):
        return 1
    return org.cursors.page_of(token) if isinstance(token, str) else 1


def answer(org: LiveOrg, document: object, faults: RequestFaults, now: Now) -> bytes:
    """Return the JSON text of a page; raises ApiError for an invalid query."""
    query = parse_query(document)
    fault = faults.due("granularity_refused")
    if fault and fault.value in (None, query.step):
        faults.count("granularity_refused")
        raise granularity_too_fine()
    check_granularity(query, org.timezone, org.settings.granularity_limits)
    if faults.fire("cardinality_refused"):
        raise cardinality_exceeded(100_000, 1)
    scan, position, number = _locate_page(org, query, faults, now)
    faults.page = number
    if faults.idle:
        text, after = _cached_page(org, scan, position)
        return _with_token(text, _next_token(org, query.token, scan, after, faults, now=now))
    page = _page_slice(scan, position, faults)
    token = _next_token(org, query.token, scan, page.after, faults, now=now)
    return corrupt_page({"nextPageToken": token, "metrics": ["flow-outcomes"], "data": page.entries}, faults)


def _cached_page(org: LiveOrg, scan: Scan, position: Position) -> CachedPage:
    """Return a page without its token; cached if it can no longer change."""
    key = (scan.digest, scan.timezone, position)
    page = org.page_cache.get(key)
    if page is None:
        entries, after = scan.page(position)
        page = (_encode({"metrics": ["flow-outcomes"], "data": entries}), after)
        if scan.is_final:
            org.page_cache.put(key, page)
    return page


def _with_token(text: bytes, token: str | None) -> bytes:
    return b'{"nextPageToken":' + _encode(token) + b"," + text[1:]


def _locate_page(org: LiveOrg, query: BuilderQuery, faults: RequestFaults, now: Now) -> tuple[Scan, Position, int]:
    """Return the query's scan, new or continued, the position of the page, and its number."""
    if query.token is None:
        return _start_scan(org, query, faults, now), Position(), 1
    cursor = org.cursors.redeem(query.token, query.digest, now.monotonic)
    if fault := faults.fire("cursor_expired"):
        expired = org.cursors.expired()
        raise ApiError(int(str(fault.value or expired.status)), expired.code, expired.message)
    return cursor.scan, cursor.position, cursor.page


def _start_scan(org: LiveOrg, query: BuilderQuery, faults: RequestFaults, now: Now) -> Scan:
    settings = org.settings
    org.cursors.sweep(now.monotonic)
    scan = open_scan(
        org.centre,
        start=query.start,
        end=query.end,
        step=query.step,
        timezone=_UTC if faults.fire("utc_cut") else org.timezone,
        at=now.at,
        flows=query.flows,
        delay=query.delay,
        limit=query.limit,
        digest=query.digest,
        order=settings.order,
        percent_of=settings.percent_of,
        split=settings.split_entries,
    )
    refuse_results(faults, scan.pair_count)
    if settings.cardinality is not None and scan.pair_count > settings.cardinality:
        raise cardinality_exceeded(scan.pair_count, settings.cardinality)
    return scan


def _page_slice(scan: Scan, position: Position, faults: RequestFaults) -> PageSlice:
    """Return the page's entries, or none if a fault fires."""
    if faults.page == 1 and faults.fire("empty_answer"):
        return PageSlice([], None)
    fault = faults.due("empty_page")
    if fault and faults.page == (fault.page or 1):
        faults.count("empty_page")
        return PageSlice([], position)
    if fault := faults.fire("endless"):
        return PageSlice(scan.page(position).entries if fault.value == "repeated" else [], position)
    return scan.page(position)


def _next_token(
    org: LiveOrg, sent: str | None, scan: Scan, after: Position | None, faults: RequestFaults, *, now: Now
) -> str | None:
    """Return the next page's token, or a fault's replacement; ``sent`` is the request's token."""
    if sent is not None:
        if faults.fire("repeated_token"):
            return sent
        if faults.fire("cursor_loop"):
            return scan.tokens[0]
    if after is None:
        return None
    return org.cursors.issue(scan, after, faults.page + 1, now.monotonic)

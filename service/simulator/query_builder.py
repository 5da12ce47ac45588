"""The query-builder dialect: a query in, a page out, as the contract of the query-builder API shows them."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import msgspec

from service.simulator.engine import (
    BuilderQuery,
    cardinality_exceeded,
    check_granularity,
    granularity_too_fine,
    parse_query,
)
from service.simulator.faults import Occasion
from service.simulator.instants import Now
from service.simulator.organisation import LiveOrg, RememberedPage
from service.simulator.page_corruption import distort
from service.simulator.pages import Position, Scan, Slice, open_scan
from service.simulator.refusal import Refusal

PATH = "/api/v2/analytics/query-builder/query"

_UTC = ZoneInfo("UTC")
_encode = msgspec.json.Encoder().encode


def page_asked_for(org: LiveOrg, document: object) -> int:
    """The number of the page that a request asks for, from 1; 1 for anything that cannot be told."""
    try:
        token = document["queryBuilder"]["nextPageToken"]  # type: ignore[index]
    except (TypeError, KeyError):
        return 1
    return org.cursors.page_of(token) if isinstance(token, str) else 1


def answer(org: LiveOrg, document: object, occasion: Occasion, now: Now) -> bytes:
    """The JSON text of a page; Refusal where the engine takes offence."""
    query = parse_query(document)
    fault = occasion.due("granularity_refused")
    if fault and fault.value in (None, query.step):
        occasion.count("granularity_refused")
        raise granularity_too_fine()
    check_granularity(query, org.timezone, org.settings.granularity_limits)
    if occasion.strike("cardinality_refused"):
        raise cardinality_exceeded(100_000, 1)
    scan, position, number = _found(org, query, occasion, now)
    occasion.page = number
    if occasion.idle:
        text, after = _plain(org, scan, position)
        return _with_token(text, _next_token(org, query.token, scan, after, occasion, now=now))
    page = _slice(scan, position, occasion)
    token = _next_token(org, query.token, scan, page.after, occasion, now=now)
    return distort({"nextPageToken": token, "metrics": ["flow-outcomes"], "data": page.entries}, occasion)


def _plain(org: LiveOrg, scan: Scan, position: Position) -> RememberedPage:
    """A page as it should be, all but its token; remembered where it can never change."""
    key = (scan.digest, scan.timezone, position)
    found = org.remembered.get(key)
    if found is None:
        entries, after = scan.page(position)
        found = (_encode({"metrics": ["flow-outcomes"], "data": entries}), after)
        if scan.final:
            org.remembered.put(key, found)
    return found


def _with_token(text: bytes, token: str | None) -> bytes:
    return b'{"nextPageToken":' + _encode(token) + b"," + text[1:]


def _found(org: LiveOrg, query: BuilderQuery, occasion: Occasion, now: Now) -> tuple[Scan, Position, int]:
    """The scan that the query begins or goes on with, where in it the page begins, and the page's number."""
    if query.token is None:
        return _opened(org, query, occasion, now), Position(), 1
    cursor = org.cursors.redeem(query.token, query.digest, now.monotonic)
    if fault := occasion.strike("cursor_expired"):
        expired = org.cursors.expired()
        raise Refusal(int(str(fault.value or expired.status)), expired.code, expired.message)
    return cursor.scan, cursor.position, cursor.page


def _opened(org: LiveOrg, query: BuilderQuery, occasion: Occasion, now: Now) -> Scan:
    settings = org.settings
    org.cursors.sweep(now.monotonic)
    scan = open_scan(
        org.centre,
        start=query.start,
        end=query.end,
        step=query.step,
        timezone=_UTC if occasion.strike("utc_cut") else org.timezone,
        at=now.at,
        flows=query.flows,
        delay=query.delay,
        limit=query.limit,
        digest=query.digest,
        order=settings.order,
        percent_of=settings.percent_of,
        split=settings.split_entries,
    )
    if settings.cardinality is not None and scan.places > settings.cardinality:
        raise cardinality_exceeded(scan.places, settings.cardinality)
    return scan


def _slice(scan: Scan, position: Position, occasion: Occasion) -> Slice:
    """The page's entries, or none where a fault says so."""
    if occasion.page == 1 and occasion.strike("empty_answer"):
        return Slice([], None)
    fault = occasion.due("empty_page")
    if fault and occasion.page == (fault.page or 1):
        occasion.count("empty_page")
        return Slice([], position)
    return scan.page(position)


def _next_token(
    org: LiveOrg, sent: str | None, scan: Scan, after: Position | None, occasion: Occasion, *, now: Now
) -> str | None:
    """The token of the next page, or what a fault puts in its place; ``sent`` is the one that came."""
    if sent is not None:
        if occasion.strike("repeated_token"):
            return sent
        if occasion.strike("cursor_loop"):
            return scan.tokens[0]
    if after is None:
        return None
    return org.cursors.issue(scan, after, occasion.page + 1, now.monotonic)

"""Windows joined into scans, spans as queries, queries in halves."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model import Granularity, Query, Span, SplitHint, Window
from service.plan.buckets import ceil, floor, following
from service.plan.granularity import WindowKind, one_query
from service.plan.grouping import OrgSettings, WindowGroups, group_windows, queries
from service.plan.splitting import halve, largest, size, split_hint
from service.plan.windows import owed

HOURLY, DAILY, MONTHLY = Granularity
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ORG = OrgSettings("acme", "UTC")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)


def windows(count: int, kind: WindowKind = "day", granularity: Granularity = DAILY) -> list[Window]:
    spans = owed(kind, START, START + 4000 * DAY, HOUR, "UTC")[:count]
    return [Window("acme", "job:x", "x", span, "auto", granularity, span.end + HOUR) for span in spans]


def joined(given: list[Window], entries: float | None = 1.0, **other: Any) -> WindowGroups:  # noqa: ANN401
    settings: dict[str, Any] = {"delay": HOUR, "metrics_delay": "auto"} | other
    return group_windows(given, ORG, entries_per_bucket=entries, **settings)


def sizes(result: WindowGroups) -> list[int]:
    return [len(scan) for scan in result.scans]


def ask(span: Span, granularity: Granularity = DAILY, org: OrgSettings = ORG, **other: Any) -> tuple[Query, ...]:  # noqa: ANN401
    settings: dict[str, Any] = {"delay": HOUR, "metrics_delay": "auto", "now": NOW} | other
    return queries(span, granularity, org, **settings)


def test_join_up_to_the_limit_of_a_query() -> None:
    """Small windows are joined while one query may ask for them, and no window is cut for it."""
    assert sizes(joined(windows(400))) == [365, 35]
    assert sizes(joined(windows(200, "hour", HOURLY))) == [168, 32]
    assert sizes(joined(windows(200, "hour", HOURLY), metrics_delay="always")) == [167, 33]


def test_first_answer_is_a_probe() -> None:
    """While nobody knows the size of an answer, one window goes alone and the rest waits, without a gap."""
    given = windows(5)
    assert joined(given, None) == WindowGroups([given[:1]], given[1:])
    assert joined(given[:1], None) == WindowGroups([given[:1]], [])
    assert joined(given[3:] + given[:3], None) == WindowGroups([given[4:]], [given[3], *given[:3]])
    assert joined([], None) == WindowGroups([], [])
    assert joined([]) == WindowGroups([], [])


@pytest.mark.parametrize(
    ("entries", "room"),
    [
        (500.0, 25),  # 5 pages a day, 500 in all: 125 for each of 4 scans
        (1000.0, 12),  # 10 pages a day, 1,000 in all: 125 at most
        (100.0, 25),  # 1 page a day, 100 in all: 25 each
        (10.0, 100),  # 10 pages in all: all of them in one
    ],
)
def test_chunks_keep_several_scans_in_flight(entries: float, room: int) -> None:
    """A backlog is shared between the scans in flight, in chunks of 20 to 125 pages."""
    assert max(sizes(joined(windows(100), entries))) == room


def test_the_first_chunks_end_one_after_the_other() -> None:
    """Each a fourth longer than the one before, where four are asked side by side; none below twenty pages."""
    assert sizes(joined(windows(100), 500.0)) == [6, 12, 18, 25, 25, 14]
    assert sizes(joined(windows(100), 100.0)) == [20, 20, 20, 25, 15]


def test_large_window_stands_alone() -> None:
    """A window that brings more pages than a scan should is a scan by itself."""
    assert sizes(joined(windows(3), 20_000.0)) == [1, 1, 1]


def test_only_neighbours_are_joined() -> None:
    """A gap, another granularity, another work and what is to be alone each begin a new scan."""
    given = windows(10)
    assert sizes(joined(given, alone=[given[4].span])) == [4, 1, 5]
    assert sizes(joined(given[:3] + given[5:])) == [3, 5]
    many = windows(100)
    assert sizes(joined(many[50:] + many[:50], 101.0)) == [19, 19, 12, 25, 25]
    assert sizes(joined(given[:5] + [replace(each, work="job:y") for each in given[5:]])) == [5, 5]
    assert sizes(joined(given[:5] + [replace(each, granularity=HOURLY) for each in given[5:]])) == [5, 5]


def test_few_pages_are_asked_for_in_the_order_of_time() -> None:
    """A hundred pages in all: the newest windows, which else come first, are joined with those before them."""
    given = windows(100)
    newest_first = given[97:] + given[:97]
    assert joined(newest_first, 20.0).scans == [given]
    assert [scan[0] for scan in joined(newest_first, 100.0).scans] == [given[each] for each in (0, 20, 40, 60, 85)]
    assert [scan[0] for scan in joined(newest_first, 100.1).scans][:2] == [given[97], given[0]]


def test_auto_sends_the_delay_where_it_has_not_settled() -> None:
    """A settled span goes without metricsDelay: it would cut its last hour out for good."""
    day = Span(START, START + DAY)
    (settled,) = ask(day, now=day.end + HOUR)
    assert (settled.metrics_delay, settled.asked) == (None, day)
    (fresh,) = ask(day, now=day.end + HOUR - timedelta(seconds=1))
    assert (fresh.metrics_delay, fresh.asked) == (HOUR, day)
    (never,) = ask(day, now=day.end, metrics_delay="never")
    assert (never.metrics_delay, never.asked) == (None, day)


def test_always_asks_further() -> None:
    """``always`` sends the delay each time and asks up to the edge after it, in more pieces for want of room."""
    day = Span(START, START + DAY)
    (always,) = ask(day, metrics_delay="always")
    assert (always.metrics_delay, always.span) == (HOUR, day)
    assert always.asked == Span(START, START + 2 * DAY)
    (hours,) = ask(day, HOURLY, metrics_delay="always", delay=90 * timedelta(minutes=1))
    assert hours.asked == Span(START, day.end + 2 * HOUR)
    week = ask(Span(START, START + 7 * DAY), HOURLY, metrics_delay="always")
    assert [query.span.duration for query in week] == [84 * HOUR, 84 * HOUR]
    assert all(query.asked.end == query.span.end + HOUR for query in week)


def test_query_carries_the_settings_of_its_org() -> None:
    """Name, zone, flows and page size are the org's."""
    org = OrgSettings("umbrella", "Asia/Kolkata", flows=("a",), page_size=7)
    start = datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata")).astimezone(UTC)
    (query,) = ask(Span(start, start + DAY), org=org)
    assert (query.org, query.timezone, query.flows, query.page_size) == ("umbrella", "Asia/Kolkata", ("a",), 7)


def test_halve_by_flows_first() -> None:
    """Where flows are listed they are shared out; the span stays whole."""
    (query,) = ask(Span(START, START + DAY), org=replace(ORG, flows=("a", "b", "c")))
    halves = halve(query)
    assert halves is not None
    assert [half.flows for half in halves] == [("a",), ("b", "c")]
    assert {half.span for half in halves} == {query.span}


def test_halve_ends_at_one_bucket() -> None:
    """One bucket of one flow, or of all flows, cannot be cut."""
    for flows in ((), ("a",)):
        (query,) = ask(Span(START, START + DAY), org=replace(ORG, flows=flows))
        assert halve(query) is None


def refused(query: Query, limit: int, cuts: list[SplitHint]) -> int:
    """How often a server with a limit refuses a query that is cut by what is known, and by what it says."""
    most, waiting, count = largest(query, query.span, cuts), [query], 0
    while waiting:
        asked = waiting.pop(0)
        halves = halve(asked)
        if halves and size(asked) > min(most, limit):
            if size(asked) <= most:
                count += 1
                cuts.append(split_hint(asked, halves))
            waiting[:0] = halves
    return count


@given(
    st.sampled_from([(), ("a",), ("a", "b", "c", "d", "e")]),
    st.integers(1, 60),
    st.integers(2, 40),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_what_was_too_large_is_known_for_another_span(
    flows: tuple[str, ...], limit: int, days: int, before: int, after: int
) -> None:
    """A query over what was asked already, and more, is cut at once to what passes."""
    org, cuts = replace(ORG, flows=flows), list[SplitHint]()
    (first,) = ask(Span(START, START + days * DAY), org=org)
    assert bool(refused(first, limit, cuts)) == (size(first) > limit)
    (second,) = ask(Span(START - before * DAY, START + (days + after) * DAY), org=org)
    if cuts:
        assert refused(second, limit, cuts) == 0
        assert largest(second, second.span, cuts) <= limit
    elsewhere = Span(START - 9 * DAY, START)
    assert largest(first, elsewhere, cuts) == float("inf")


def test_halves_of_what_has_not_settled() -> None:
    """The engine ignores the same records in the halves as in the whole."""
    (query,) = ask(Span(START, START + 4 * HOUR), HOURLY, delay=3 * HOUR, now=START)
    halves = halve(query)
    assert halves is not None
    assert [half.metrics_delay for half in halves] == [HOUR, 3 * HOUR]
    (query,) = ask(Span(START, START + 4 * HOUR), HOURLY, delay=HOUR, now=START)
    halves = halve(query)
    assert halves is not None
    assert [half.metrics_delay for half in halves] == [None, HOUR]


@given(
    st.sampled_from(sorted(available_timezones())),
    st.datetimes(datetime(1990, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(Granularity),
    st.integers(2, 30),
    st.sampled_from([None, HOUR, 2.5 * HOUR]),
)
@settings(deadline=None)
def test_halves_tile(
    zone: str, at: datetime, granularity: Granularity, count: int, always: timedelta | None
) -> None:
    """Halved down to one bucket, the parts tile the span, and each asks as far as its mode says."""
    start = end = floor(at, granularity, zone)
    for _ in range(count):
        end = following(end, granularity, zone)
    mode = "auto" if always is None else "always"
    made = ask(Span(start, end), granularity, OrgSettings("acme", zone), metrics_delay=mode, delay=always or HOUR)
    assert [made[0].span.start, *(query.span.end for query in made)] == [
        *(query.span.start for query in made),
        end,
    ]
    parts: list[Query] = []
    left = list(reversed(made))
    while left:
        query = left.pop()
        halves = halve(query)
        if halves is None:
            parts.append(query)
        else:
            left += reversed(halves)
    assert len(parts) == count
    edge = start
    for part in parts:
        assert part.span == Span(edge, following(edge, granularity, zone))
        edge = part.span.end
        further = always or timedelta(0)
        assert part.asked == Span(part.span.start, ceil(part.span.end + further, granularity, zone))
        assert part.metrics_delay == always


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=60, unique=True).flatmap(
        lambda days: st.sampled_from([days, sorted(days)])
    ),
    st.floats(0, 5000),
    st.sampled_from(["auto", "always"]),
)
@settings(deadline=None)
def test_joined_scans_keep_every_window(days: list[int], entries: float, mode: str) -> None:
    """Every window is in one scan, in order, and what is joined is one query of no more than 125 pages."""
    every = windows(61)
    scans = joined([every[day] for day in days], entries, metrics_delay=mode).scans
    in_order = days if len(days) * entries / 100 > 100 else sorted(days)
    assert [window for scan in scans for window in scan] == [every[day] for day in in_order]
    for scan in (scan for scan in scans if len(scan) > 1):
        whole = Span(scan[0].span.start, scan[-1].span.end)
        assert one_query(whole, DAILY, "UTC", HOUR if mode == "always" else timedelta(0))
        assert len(ask(whole, metrics_delay=mode)) == 1
        assert len(scan) * entries / 100 <= 125.000001

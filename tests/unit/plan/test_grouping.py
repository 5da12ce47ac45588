"""Windows as scans, spans as queries, queries in halves."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.model import Granularity, Query, Span, SplitHint, Window
from service.plan.buckets import ceil, floor, following
from service.plan.granularity import WindowKind, one_query
from service.plan.grouping import MetricsDelay, OrgSettings, WindowGroups, group_windows, queries
from service.plan.splitting import halve, in_parts, largest, size, split_hint
from service.plan.windows import settled_spans

HOURLY, DAILY, MONTHLY = Granularity
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ORG = OrgSettings("acme", "UTC")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
START = datetime(2024, 1, 1, tzinfo=UTC)

modes: st.SearchStrategy[MetricsDelay] = st.sampled_from(["auto", "always"])


def windows(count: int, kind: WindowKind = "day", granularity: Granularity = DAILY) -> list[Window]:
    spans = settled_spans(kind, START, START + 4000 * DAY, HOUR, "UTC")[:count]
    return [Window("acme", "job:x", "x", span, "auto", granularity, span.end + HOUR) for span in spans]


def grouped(
    given: list[Window],
    entries: float | None = 1.0,
    *,
    metrics_delay: MetricsDelay = "auto",
    isolated: Collection[Span] = (),
    org: OrgSettings = ORG,
) -> WindowGroups:
    return group_windows(
        given, org, entries_per_bucket=entries, delay=HOUR, metrics_delay=metrics_delay, isolated=isolated
    )


def sizes(result: WindowGroups) -> list[int]:
    return [len(scan) for scan in result.scans]


def queries_of(
    span: Span,
    granularity: Granularity = DAILY,
    org: OrgSettings = ORG,
    *,
    delay: timedelta = HOUR,
    metrics_delay: MetricsDelay = "auto",
    now: datetime = NOW,
) -> tuple[Query, ...]:
    return queries(span, granularity, org, delay=delay, metrics_delay=metrics_delay, now=now)


def test_windows_are_grouped_up_to_the_limit_of_a_query() -> None:
    """Small windows are grouped while one query can cover them; no window is cut."""
    assert sizes(grouped(windows(400))) == [365, 35]
    assert sizes(grouped(windows(200, "hour", HOURLY))) == [168, 32]
    assert sizes(grouped(windows(200, "hour", HOURLY), metrics_delay="always")) == [167, 33]


def test_the_first_scan_is_a_probe() -> None:
    """While the number of entries is unknown, one window is queried and the rest waits, without a gap."""
    given = windows(5)
    assert grouped(given, None) == WindowGroups([given[:1]], given[1:])
    assert grouped(given[:1], None) == WindowGroups([given[:1]], [])
    assert grouped(given[3:] + given[:3], None) == WindowGroups([given[4:]], [given[3], *given[:3]])
    assert grouped([], None) == WindowGroups([], [])
    assert grouped([]) == WindowGroups([], [])


@pytest.mark.parametrize(
    ("entries", "limit"),
    [
        (500.0, 25),  # 5 pages a day, 500 in all: 125 for each of 4 scans
        (1000.0, 12),  # 10 pages a day, 1,000 in all: 125 at most
        (100.0, 25),  # 1 page a day, 100 in all: 25 each
        (10.0, 100),  # 10 pages in all: all of them in one
    ],
)
def test_a_backlog_is_shared_between_scans(entries: float, limit: int) -> None:
    """A backlog is shared between the scans in flight, 20 to 125 pages each."""
    assert max(sizes(grouped(windows(100), entries))) == limit


def test_the_first_scans_end_one_after_the_other() -> None:
    """With four side by side each is a quarter of the limit longer than the one before; none is below 20 pages."""
    assert sizes(grouped(windows(100), 500.0))[:4] == [6, 12, 18, 25]
    assert sizes(grouped(windows(100), 100.0)) == [20, 20, 20, 25, 15]


def test_the_last_scans_are_shorter() -> None:
    """Each has at most half of what is left, so that none runs long alone; one scan at a time is always alone."""
    assert sizes(grouped(windows(100), 500.0))[4:] == [19, 10, 5, 4, 1]
    assert sizes(grouped(windows(100), 500.0, org=replace(ORG, concurrency=1))) == [25, 25, 25, 25]


def test_a_large_window_is_a_scan_of_its_own() -> None:
    """A window of more pages than the limit is not grouped."""
    assert sizes(grouped(windows(3), 20_000.0)) == [1, 1, 1]


@pytest.mark.parametrize("page_size", [10, 100, 1000])
@pytest.mark.parametrize("entries", [1.0, 250.0, 7000.0, 29_999.0])
def test_the_entries_of_a_response_without_pages_are_bounded(entries: float, page_size: int) -> None:
    """Whatever ``page_size`` says; without that limit a scan has as many pages as ever."""
    org = replace(ORG, page_size=page_size, concurrency=1, entries_max=30_000)
    assert max(sizes(grouped(windows(300), entries, org=org))) * entries < 30_000
    unbounded = sizes(grouped(windows(300), entries, org=replace(org, entries_max=None)))
    if page_size == 1000 and entries == 250:
        assert max(unbounded) * entries > 30_000


def test_only_neighbours_are_grouped() -> None:
    """A gap, another granularity, another stream and an isolated window each begin a new scan."""
    given = windows(10)
    assert sizes(grouped(given, isolated=[given[4].span])) == [4, 1, 5]
    assert sizes(grouped(given[:3] + given[5:])) == [3, 5]
    many = windows(100)
    assert sizes(grouped(many[50:] + many[:50], 101.0)) == [19, 19, 12, 24, 19, 7]
    assert sizes(grouped(given[:5] + [replace(each, stream="job:y") for each in given[5:]])) == [5, 5]
    assert sizes(grouped(given[:5] + [replace(each, granularity=HOURLY) for each in given[5:]])) == [5, 5]


def test_few_pages_are_grouped_in_order_of_time() -> None:
    """Up to a hundred pages in all, the newest windows are grouped with those before them."""
    given = windows(100)
    newest_first = given[97:] + given[:97]
    assert grouped(newest_first, 20.0).scans == [given]
    assert [scan[0] for scan in grouped(newest_first, 100.0).scans] == [
        given[each] for each in (0, 20, 40, 60, 85)
    ]
    assert [scan[0] for scan in grouped(newest_first, 100.1).scans][:2] == [given[97], given[0]]


def test_auto_sends_the_delay_for_unsettled_records() -> None:
    """A settled span is sent without metricsDelay, which would drop its last hour for good."""
    day = Span(START, START + DAY)
    (settled,) = queries_of(day, now=day.end + HOUR)
    assert (settled.metrics_delay, settled.request_span) == (None, day)
    (fresh,) = queries_of(day, now=day.end + HOUR - timedelta(seconds=1))
    assert (fresh.metrics_delay, fresh.request_span) == (HOUR, day)
    (never,) = queries_of(day, now=day.end, metrics_delay="never")
    assert (never.metrics_delay, never.request_span) == (None, day)


def test_always_requests_more() -> None:
    """``always`` sends the delay each time and requests up to the edge after it, in more queries if necessary."""
    day = Span(START, START + DAY)
    (always,) = queries_of(day, metrics_delay="always")
    assert (always.metrics_delay, always.span) == (HOUR, day)
    assert always.request_span == Span(START, START + 2 * DAY)
    (hours,) = queries_of(day, HOURLY, metrics_delay="always", delay=90 * timedelta(minutes=1))
    assert hours.request_span == Span(START, day.end + 2 * HOUR)
    week = queries_of(Span(START, START + 7 * DAY), HOURLY, metrics_delay="always")
    assert [query.span.duration for query in week] == [84 * HOUR, 84 * HOUR]
    assert all(query.request_span.end == query.span.end + HOUR for query in week)


def test_query_carries_the_settings_of_its_org() -> None:
    """Name, zone, flows and page size."""
    org = OrgSettings("umbrella", "Asia/Kolkata", flows=("a",), page_size=7)
    start = datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Kolkata")).astimezone(UTC)
    (query,) = queries_of(Span(start, start + DAY), org=org)
    assert (query.org, query.timezone, query.flows, query.page_size) == ("umbrella", "Asia/Kolkata", ("a",), 7)


@given(st.integers(1, 60), st.integers(1, 70), modes)
def test_a_query_in_parts(days: int, most: int, metrics_delay: MetricsDelay) -> None:
    """The fewest parts of at most so many buckets, about equally long, without a gap."""
    span = Span(START, START + days * DAY)
    (query,) = queries_of(span, metrics_delay=metrics_delay)
    parts = in_parts(query, most)
    lengths = [part.span.duration // DAY for part in parts]
    assert len(parts) == -(-days // most)
    assert max(lengths) <= most
    assert max(lengths) - min(lengths) <= 1
    assert [part.span.start for part in parts[1:]] == [part.span.end for part in parts[:-1]]
    assert (parts[0].span.start, parts[-1].span.end) == span


def test_halve_by_flows_first() -> None:
    """Where flows are listed they are divided; the span is not."""
    (query,) = queries_of(Span(START, START + DAY), org=replace(ORG, flows=("a", "b", "c")))
    halves = halve(query)
    assert halves is not None
    assert [half.flows for half in halves] == [("a",), ("b", "c")]
    assert {half.span for half in halves} == {query.span}


def test_halve_ends_at_one_bucket() -> None:
    """One bucket of one flow, or of all flows, cannot be split."""
    for flows in ((), ("a",)):
        (query,) = queries_of(Span(START, START + DAY), org=replace(ORG, flows=flows))
        assert halve(query) is None


def rejections(query: Query, limit: int, hints: list[SplitHint]) -> int:
    """How often a server with a limit rejects parts of a query that is split by hints and by rejections."""
    most, waiting, count = largest(query, query.span, hints), [query], 0
    while waiting:
        part = waiting.pop(0)
        halves = halve(part)
        if halves and size(part) > min(most, limit):
            if size(part) <= most:
                count += 1
                hints.append(split_hint(part, halves, part.span))
            waiting[:0] = halves
    return count


@given(
    st.sampled_from([(), ("a",), ("a", "b", "c", "d", "e")]),
    st.integers(1, 60),
    st.integers(2, 40),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_a_hint_applies_to_another_span(
    flows: tuple[str, ...], limit: int, days: int, before: int, after: int
) -> None:
    """A query that covers a former one, and more, is split at once to a size that passes."""
    org, hints = replace(ORG, flows=flows), list[SplitHint]()
    (first,) = queries_of(Span(START, START + days * DAY), org=org)
    assert bool(rejections(first, limit, hints)) == (size(first) > limit)
    (second,) = queries_of(Span(START - before * DAY, START + (days + after) * DAY), org=org)
    if hints:
        assert rejections(second, limit, hints) == 0
        assert largest(second, second.span, hints) <= limit
    elsewhere = Span(START - 9 * DAY, START)
    assert largest(first, elsewhere, hints) == float("inf")


def test_halves_of_an_unsettled_query() -> None:
    """The API ignores the same records in the halves as in the complete query."""
    (query,) = queries_of(Span(START, START + 4 * HOUR), HOURLY, delay=3 * HOUR, now=START)
    halves = halve(query)
    assert halves is not None
    assert [half.metrics_delay for half in halves] == [HOUR, 3 * HOUR]
    (query,) = queries_of(Span(START, START + 4 * HOUR), HOURLY, delay=HOUR, now=START)
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
    """Split down to one bucket, the parts cover the span, and each requests the overhang of its mode."""
    start = end = floor(at, granularity, zone)
    for _ in range(count):
        end = following(end, granularity, zone)
    mode: MetricsDelay = "auto" if always is None else "always"
    made = queries_of(
        Span(start, end), granularity, OrgSettings("acme", zone), metrics_delay=mode, delay=always or HOUR
    )
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
        assert part.request_span == Span(part.span.start, ceil(part.span.end + further, granularity, zone))
        assert part.metrics_delay == always


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=60, unique=True).flatmap(
        lambda days: st.sampled_from([days, sorted(days)])
    ),
    st.floats(0, 5000),
    modes,
)
@settings(deadline=None)
def test_every_window_is_in_one_scan(days: list[int], entries: float, mode: MetricsDelay) -> None:
    """In order; a scan of several windows is one query of at most 125 pages."""
    every = windows(61)
    scans = grouped([every[day] for day in days], entries, metrics_delay=mode).scans
    in_order = days if len(days) * entries / 100 > 100 else sorted(days)
    assert [window for scan in scans for window in scan] == [every[day] for day in in_order]
    for scan in (scan for scan in scans if len(scan) > 1):
        span = Span(scan[0].span.start, scan[-1].span.end)
        assert one_query(span, DAILY, "UTC", HOUR if mode == "always" else timedelta(0))
        assert len(queries_of(span, metrics_delay=mode)) == 1
        assert len(scan) * entries / 100 <= 125.000001

"""The cost of windows, as a cycle would group them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.model import Granularity, Span, Window
from service.plan.forecast import Cost, by_kind, cost, seconds
from service.plan.grouping import OrgSettings

ORG = OrgSettings("acme", "UTC", page_size=100, concurrency=4)
FIRST = datetime(2023, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def days(count: int) -> list[Window]:
    return [
        Window(
            "acme",
            "job:daily",
            "daily",
            Span(FIRST + number * DAY, FIRST + (number + 1) * DAY),
            "daily",
            Granularity.DAILY,
            FIRST,
        )
        for number in range(count)
    ]


def cost_of(windows: list[Window], entries: float, *, isolated: tuple[Span, ...] = ()) -> Cost:
    return cost(
        windows,
        ORG,
        entries_per_bucket=entries,
        delay=timedelta(hours=1),
        metrics_delay="auto",
        now=NOW,
        isolated=isolated,
    )


def test_nothing_costs_nothing() -> None:
    """No window, no request."""
    assert cost_of([], 10) == Cost(0, 0, 0)


@pytest.mark.parametrize(("entries", "pages"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_one_window_is_at_least_a_page(entries: float, pages: int) -> None:
    """A query has at least one page; the last one may be partly filled."""
    assert cost_of(days(1), entries) == Cost(1, 1, pages)


def test_a_response_without_pages_is_one_request() -> None:
    """However many entries it has; a query in parts is one request a part."""
    org = replace(ORG, entries_max=30_000)
    assert org.most_buckets(840) == 35
    windows = [replace(days(1)[0], span=Span(FIRST, FIRST + 60 * DAY))]
    for widest, queries in ((None, 1), (35, 2), (10, 6)):
        found = cost(
            windows,
            org,
            entries_per_bucket=840,
            delay=timedelta(hours=1),
            metrics_delay="auto",
            now=NOW,
            widest=widest,
        )
        assert (found.queries, found.pages) == (queries, queries)


def test_adjacent_days_are_grouped() -> None:
    """Ten adjacent days of ten flows fit one page; every other day is a request of its own."""
    assert cost_of(days(10), 10) == Cost(1, 1, 1)
    assert cost_of(days(10)[::2], 10) == Cost(5, 5, 5)


def test_an_isolated_window_is_a_scan_of_its_own() -> None:
    """It is not grouped with its neighbours."""
    windows = days(3)
    assert cost_of(windows, 10, isolated=(windows[1].span,)) == Cost(3, 3, 3)


def test_years_are_no_more_than_their_pages() -> None:
    """Three years of 1000 flows are ten pages a day, however they are grouped."""
    years = cost_of(days(1095), 1000)
    assert years.pages == 10950
    assert years.scans < 1095


def test_granularities_are_not_grouped() -> None:
    """A coarsened window is counted apart."""
    windows = days(3)
    windows[1] = replace(windows[1], granularity=Granularity.MONTHLY)
    assert {step: len(group) for (step, _), group in by_kind(windows).items()} == {
        Granularity.DAILY: 2,
        Granularity.MONTHLY: 1,
    }


def test_time_at_the_limit() -> None:
    """600 requests take a minute at ten per second."""
    assert seconds(600, 10) == 60

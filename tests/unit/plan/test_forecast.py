"""What windows would cost, held against what a cycle would do with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.model import Granularity, Span, Window
from service.plan.forecast import Cost, by_granularity, cost, seconds
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


def reckoned(windows: list[Window], entries: float, *, alone: tuple[Span, ...] = ()) -> Cost:
    return cost(
        windows,
        ORG,
        entries_per_bucket=entries,
        delay=timedelta(hours=1),
        metrics_delay="auto",
        now=NOW,
        alone=alone,
    )


def test_nothing_costs_nothing() -> None:
    """No window, no request."""
    assert reckoned([], 10) == Cost(0, 0, 0)


@pytest.mark.parametrize(("entries", "pages"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_one_window_is_at_least_a_page(entries: float, pages: int) -> None:
    """The last page of a query is seldom full, and there is always one."""
    assert reckoned(days(1), entries) == Cost(1, 1, pages)


def test_adjacent_days_are_joined() -> None:
    """Ten days of ten flows fit a page, so they are one request; apart they are ten."""
    assert reckoned(days(10), 10) == Cost(1, 1, 1)
    assert reckoned(days(10)[::2], 10) == Cost(5, 5, 5)


def test_a_window_at_fault_is_asked_alone() -> None:
    """What shared a page at fault is not joined again."""
    windows = days(3)
    assert reckoned(windows, 10, alone=(windows[1].span,)) == Cost(3, 3, 3)


def test_years_are_no_more_than_their_pages() -> None:
    """Three years of 1000 flows: ten pages a day, whatever the scans they are joined into."""
    found = reckoned(days(1095), 1000)
    assert found.pages == 10950
    assert found.scans < 1095


def test_granularities_are_not_joined() -> None:
    """A window that was coarsened stands apart."""
    windows = days(3)
    windows[1] = replace(windows[1], granularity=Granularity.MONTHLY)
    assert {step: len(group) for step, group in by_granularity(windows).items()} == {
        Granularity.DAILY: 2,
        Granularity.MONTHLY: 1,
    }


def test_time_at_the_limit() -> None:
    """Ten a second."""
    assert seconds(600, 10) == 60

"""How wide the next query is: against servers with any limit, the requests against the least that is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    ConnectionFailedError,
    ExtractionError,
    ForbiddenError,
    QueryRefusedError,
    QueryTimeoutError,
    QueryTooLargeError,
    RequestRejectedError,
    ServerError,
)
from service.model import QueryWidth
from service.plan.narrowing import KEEP, Cause, WidthPolicy, cause_of, known_width

NOW = datetime(2024, 1, 1, tzinfo=UTC)
QUOTA = QueryRefusedError("HTTP 400", status=400, code="tenant.quota")
GATEWAY = ServerError("HTTP 504", status=504)
Passes = Callable[[int, int], bool]


@dataclass
class Run:
    """One cycle over windows of equal width, one query after the other, as the scanner and the pipeline run it.

    Attributes:
        policy: the rule under test.
        passes: whether the server serves a query, by its first bucket and its width.
        error: what the server answers otherwise.
    """

    policy: WidthPolicy
    passes: Passes
    error: ExtractionError = QUOTA
    cycle: str = "first"
    now: datetime = NOW
    sent: list[tuple[int, int]] = field(default_factory=list)
    refused: list[tuple[int, int]] = field(default_factory=list)
    failed: list[tuple[int, int]] = field(default_factory=list)
    counted: list[int] = field(default_factory=list)

    def windows(self, count: int, window: int, *, probe: bool = False) -> None:
        """Request adjacent windows; with ``probe`` the first one by itself, as where nothing is known."""
        first, limit = 0, None
        if probe:
            self._window(0, window)
            first = 1
        while first < count:
            taken = self.policy.take([window] * (count - first), self.cycle, self.now, limit)
            if taken == 1:
                self._window(first * window, window)
            else:
                result = self._send(first * window, taken * window)
                if result is None:
                    limit = taken * window - 1
                    continue
                if not result:
                    self.failed.append((first * window, taken * window))
            first, limit = first + taken, None

    def _window(self, start: int, window: int) -> None:
        end, limit = start + window, window
        while start < end:
            width = min(limit, self.policy.limit(end - start, window, self.cycle, self.now))
            result = self._send(start, width)
            if result is False:
                self.failed.append((end - window, window))
                return
            start, limit = (start, width - 1) if result is None else (start + width, window)

    def _send(self, start: int, width: int) -> bool | None:
        """Whether the query was served; None where narrower queries replace it."""
        assert width >= 1
        self.sent.append((start, width))
        if self.passes(start, width):
            self.policy.served(width, self.cycle)
            return True
        self.refused.append((start, width))
        if self.policy.counts_for_breaker(width, self.cycle):
            self.counted.append(width)
        return None if self.policy.failed(width, self.error, self.cycle, self.now) else False


def at_most(limit: int) -> Passes:
    return lambda _, width: width <= limit


@given(
    st.integers(1, 365),
    st.sampled_from([1, 7, 24, 30]),
    st.integers(1, 400),
    st.booleans(),
    st.sampled_from([QUOTA, GATEWAY]),
)
def test_requests_against_the_least(
    count: int, window: int, limit: int, probe: bool, error: ExtractionError
) -> None:
    """Everything is served, no span is requested twice, and at most twice the least is needed, and two more.

    A width that was learned passes in the next cycle.
    """
    run = Run(WidthPolicy(), at_most(limit), error)
    run.windows(count, window, probe=probe)
    assert run.failed == []
    assert len(set(run.sent)) == len(run.sent)
    least = ceil(count / (limit // window)) if limit >= window else count * ceil(window / limit)
    assert len(run.sent) <= 2 * least + 2
    learned = run.policy.learned
    assert (learned is None) == (run.refused == [])
    if learned is None:
        return
    again = Run(WidthPolicy(learned), at_most(limit), error, cycle="second")
    again.windows(count, window)
    assert again.refused == []
    assert len(again.sent) <= 2 * least


@given(st.sets(st.integers(0, 200), max_size=9), st.integers(1, 200), st.sampled_from([1, 24]))
def test_servers_that_refuse_some_buckets_for_good(bad: set[int], count: int, window: int) -> None:
    """It ends, no span is requested twice in a cycle, and after as many cycles only those windows fail.

    A window that was refused by itself is requested alone and last, as the scanner does.
    """

    def passes(first: int, start: int, width: int) -> bool:
        return not any(first + start <= each < first + start + width for each in bad)

    policy, isolated, wrong = WidthPolicy(), set[int](), {each // window for each in bad if each < count * window}
    for number in range(len(wrong) + 2):
        run = Run(policy, partial(passes, 0), cycle=f"cycle {number}")
        groups, group = list[list[int]](), list[int]()
        for each in [*range(count), -1]:
            if each == -1 or each in isolated:
                groups += [group] if group else []
                group = []
            else:
                group.append(each)
        for group in groups:
            first = group[0] * window
            part = Run(policy, partial(passes, first), cycle=run.cycle)
            part.windows(len(group), window)
            assert len(set(part.sent)) == len(part.sent)
            run.failed += [(start + first, width) for start, width in part.failed]
        isolated |= {start // window for start, width in run.failed if width == window}
    assert {start // window for start, width in run.failed} <= wrong
    assert wrong <= isolated


def test_a_year_at_a_gateway_that_allows_one_day() -> None:
    """374 requests, of which 9 are refused, where 365 are the least."""
    run = Run(WidthPolicy(), at_most(1), GATEWAY)
    run.windows(365, 1, probe=True)
    assert (len(run.sent), len(run.refused)) == (374, 9)
    assert run.counted == [], "narrower ones are answered"


def test_one_window_comes_first() -> None:
    """After a refusal of several; where it is refused too, nothing else is narrowed, and it is not remembered."""
    run = Run(WidthPolicy(), at_most(0))
    run.windows(365, 1)
    assert run.sent == [(0, 365), (0, 1), (1, 364)]
    assert known_width(run.policy.learned) is None
    assert not run.policy.begins_with_one_window("first")
    assert run.policy.begins_with_one_window("second")
    run.policy.served(1, "second")
    assert not run.policy.begins_with_one_window("third")


def test_another_refusal_is_narrowed_in_the_same_cycle() -> None:
    """Only the same status and code are not."""
    policy = WidthPolicy()
    assert not policy.failed(1, QUOTA, "cycle", NOW)
    assert not policy.failed(9, QUOTA, "cycle", NOW)
    assert policy.failed(9, GATEWAY, "cycle", NOW)
    assert policy.failed(9, QUOTA, "next", NOW)


def test_what_was_learned_is_kept_for_seven_days() -> None:
    """Then one query twice as wide is tried: refused it is kept again, served it becomes wider and wider."""
    policy = WidthPolicy(QueryWidth(3, 5, NOW))
    for wide, at in ((3, KEEP - timedelta(seconds=1)), (6, KEEP), (3, KEEP)):  # a trial at a time
        assert policy.limit(100, 1, "cycle", NOW + at) == wide
    assert not policy.is_settled(1, "cycle", NOW + KEEP)
    assert policy.failed(6, QUOTA, "cycle", NOW + KEEP)
    assert policy.limit(100, 1, "cycle", NOW + KEEP) == policy.limit(100, 1, "next", NOW + 2 * KEEP / 1.5) == 3
    assert policy.is_settled(1, "cycle", NOW + KEEP)
    widths = []
    for _ in range(3):
        widths.append(policy.limit(100, 1, "later", NOW + 2 * KEEP))
        policy.served(widths[-1], "later")
    assert widths == [6, 12, 24]


def test_a_query_that_timed_out_is_narrower_in_the_next_cycle() -> None:
    """One window, or a half of one; not in the same cycle, and one bucket teaches nothing."""
    policy = WidthPolicy()
    assert not policy.failed(1, QueryTimeoutError("late"), "first", NOW)
    assert policy.learned is None
    assert not policy.failed(120, QueryTimeoutError("late"), "first", NOW)
    policy = WidthPolicy(policy.learned)
    assert policy.take([24] * 5, "second", NOW) == 1
    assert not policy.failed(24, QueryTimeoutError("late"), "second", NOW)
    assert WidthPolicy(policy.learned).limit(24, 24, "third", NOW) == 12


def test_what_counts_for_the_breaker() -> None:
    """One bucket, and the third of three narrower queries in a row that fail too; 30 days as one window."""
    run = Run(WidthPolicy(), at_most(0), GATEWAY)
    run.windows(1, 30)
    assert [width for _, width in run.sent] == [30, 15, 7, 3, 1]
    assert run.counted == [3, 1]
    assert not run.policy.is_narrowable(30, "first")
    assert run.policy.is_narrowable(30, "second")


def broken(*, while_waiting: bool) -> ConnectionFailedError:
    error = ConnectionFailedError("reset")
    error.while_waiting = while_waiting
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (QueryTooLargeError("413", status=413), Cause.SIZE),
        (QUOTA, Cause.WIDTH),
        (GATEWAY, Cause.WIDTH),
        (RequestRejectedError("413", status=413), Cause.WIDTH),
        (broken(while_waiting=True), Cause.WIDTH),
        (broken(while_waiting=False), Cause.OTHER),
        (ServerError("503", status=503), Cause.OTHER),
        (RequestRejectedError("400", status=400), Cause.OTHER),
        (ForbiddenError("403", status=403), Cause.OTHER),
        (QueryTimeoutError("late"), Cause.TIMEOUT),
    ],
)
def test_the_cause_of_an_error(error: ExtractionError, cause: Cause) -> None:
    """For both APIs."""
    assert cause_of(error) is cause

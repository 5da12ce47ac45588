"""The selection of a cycle's windows."""

from datetime import UTC, datetime, timedelta

from service.model import Span
from service.plan.selection import Selection, WindowState, lookback_start, select
from service.plan.windows import settled_spans

DAY = timedelta(days=1)
DAYS = settled_spans(
    "day", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 11, 2, tzinfo=UTC), DAY / 24, "UTC"
)
DONE = {span: WindowState(complete=True) for span in DAYS}


def test_the_first_cycle_selects_everything_recent_windows_first() -> None:
    """The lookback first, then the rest from the oldest on."""
    selected = select(DAYS, {}, 3 * DAY, "UTC", with_lookback=True)
    assert selected.recent == tuple(DAYS[6:])
    assert selected.backlog == tuple(DAYS[:6])
    assert selected.in_order() == (*DAYS[6:], *DAYS[:6])


def test_a_cycle_with_lookback_extracts_stored_windows_again() -> None:
    """The newest window and those within the lookback."""
    assert select(DAYS, DONE, 3 * DAY, "UTC", with_lookback=True) == Selection(tuple(DAYS[6:]), ())
    assert select(DAYS, DONE, timedelta(0), "UTC", with_lookback=True) == Selection((DAYS[-1],), ())


def test_a_retry_selects_windows_that_need_work() -> None:
    """Windows that are unfinished, doubted or to be read again."""
    states = DONE | {
        DAYS[1]: WindowState(complete=True, doubted=True),
        DAYS[2]: WindowState(complete=True, reread=True),
        DAYS[8]: WindowState(complete=False),
    }
    del states[DAYS[4]]
    assert select(DAYS, states, 3 * DAY, "UTC", with_lookback=False) == Selection(
        (DAYS[8],), (DAYS[1], DAYS[2], DAYS[4])
    )
    assert select(DAYS, DONE, 3 * DAY, "UTC", with_lookback=False) == Selection((), ())


def test_the_deep_lookback_adds_windows_before_the_lookback() -> None:
    """To the backlog, whether or not the lookback is read; a window is selected once."""
    states = DONE | {DAYS[2]: WindowState(complete=False)}
    for with_lookback in (True, False):
        selected = select(DAYS, states, 3 * DAY, "UTC", with_lookback=with_lookback, deep=set(DAYS[1:4]))
        assert selected.backlog == (DAYS[1], DAYS[2], DAYS[3])
        assert selected.recent == (tuple(DAYS[6:]) if with_lookback else ())


def test_nothing_due() -> None:
    """Without due windows nothing is selected."""
    assert select([], {}, DAY, "UTC", with_lookback=True).in_order() == ()


def test_lookback_counts_days_of_the_calendar() -> None:
    """Three days back are three windows, also across the end of summer time; hours are elapsed time."""
    days = settled_spans(
        "day", datetime(2024, 10, 20, tzinfo=UTC), datetime(2024, 10, 31, tzinfo=UTC), DAY, "Europe/Berlin"
    )
    newest = next(day for day in days if day.start == datetime(2024, 10, 28, 23, tzinfo=UTC))
    assert lookback_start(newest.start, 3 * DAY, "Europe/Berlin") == datetime(2024, 10, 25, 22, tzinfo=UTC)
    past = days[: days.index(newest) + 1]
    states = {span: WindowState(complete=True) for span in past}
    assert len(select(past, states, 3 * DAY, "Europe/Berlin", with_lookback=True).recent) == 4
    assert lookback_start(newest.start, DAY / 4, "Europe/Berlin") == newest.start - DAY / 4


def test_states_of_other_spans_are_ignored() -> None:
    """A window that is not due is not selected."""
    other = Span(DAYS[0].start - DAY, DAYS[0].start)
    assert select(DAYS, DONE | {other: WindowState(complete=False)}, DAY, "UTC", with_lookback=False) == Selection(
        (), ()
    )

"""What a cycle takes, and in what order."""

from datetime import UTC, datetime, timedelta

from service.model import Span
from service.plan.selection import Selection, WindowState, lookback_start, select
from service.plan.windows import owed

DAY = timedelta(days=1)
DAYS = owed("day", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 11, 2, tzinfo=UTC), DAY / 24, "UTC")
DONE = {span: WindowState(complete=True) for span in DAYS}


def test_first_cycle_takes_all_newest_group_first() -> None:
    """With nothing stored everything is taken: the lookback first, then the rest, oldest first."""
    taken = select(DAYS, {}, 3 * DAY, "UTC", whole=True)
    assert taken.recent == tuple(DAYS[6:])
    assert taken.backlog == tuple(DAYS[:6])
    assert taken.in_order() == (*DAYS[6:], *DAYS[:6])


def test_whole_cycle_takes_the_lookback_along() -> None:
    """When all is stored, a cycle re-reads the newest window and those within the lookback."""
    assert select(DAYS, DONE, 3 * DAY, "UTC", whole=True) == Selection(tuple(DAYS[6:]), ())
    assert select(DAYS, DONE, timedelta(0), "UTC", whole=True) == Selection((DAYS[-1],), ())


def test_retry_takes_what_is_open() -> None:
    """Between cycles only what is unfinished, doubted or marked is asked again."""
    ledger = DONE | {
        DAYS[1]: WindowState(complete=True, doubted=True),
        DAYS[2]: WindowState(complete=True, reread=True),
        DAYS[8]: WindowState(complete=False),
    }
    del ledger[DAYS[4]]
    assert select(DAYS, ledger, 3 * DAY, "UTC", whole=False) == Selection((DAYS[8],), (DAYS[1], DAYS[2], DAYS[4]))
    assert select(DAYS, DONE, 3 * DAY, "UTC", whole=False) == Selection((), ())


def test_nothing_owed() -> None:
    """Where nothing is owed nothing is taken."""
    assert select([], {}, DAY, "UTC", whole=True).in_order() == ()


def test_lookback_counts_days_of_the_calendar() -> None:
    """Three days back are three windows, over the end of summer time too; hours are elapsed time."""
    days = owed(
        "day", datetime(2024, 10, 20, tzinfo=UTC), datetime(2024, 10, 31, tzinfo=UTC), DAY, "Europe/Berlin"
    )
    newest = next(day for day in days if day.start == datetime(2024, 10, 28, 23, tzinfo=UTC))
    assert lookback_start(newest.start, 3 * DAY, "Europe/Berlin") == datetime(2024, 10, 25, 22, tzinfo=UTC)
    past = days[: days.index(newest) + 1]
    ledger = {span: WindowState(complete=True) for span in past}
    assert len(select(past, ledger, 3 * DAY, "Europe/Berlin", whole=True).recent) == 4
    assert lookback_start(newest.start, DAY / 4, "Europe/Berlin") == newest.start - DAY / 4


def test_ledger_of_other_spans_is_passed_over() -> None:
    """What the ledger knows beside the owed windows changes nothing."""
    other = Span(DAYS[0].start - DAY, DAYS[0].start)
    assert select(DAYS, DONE | {other: WindowState(complete=False)}, DAY, "UTC", whole=False) == Selection((), ())

"""Which of the owed windows a cycle takes, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.model import Span
from service.plan.calendar import Zone, zone


@dataclass(frozen=True, slots=True)
class WindowState:
    """What the ledger says of a window.

    Attributes:
        complete: its figures are stored.
        doubted: complete, and a later scan came back empty: to be asked again.
        reread: complete, and to be asked again for another reason.
    """

    complete: bool
    doubted: bool = False
    reread: bool = False

    @property
    def open(self) -> bool:
        """Whether a cycle has something to do here, lookback or not."""
        return not self.complete or self.doubted or self.reread


@dataclass(frozen=True, slots=True)
class Selection:
    """What a cycle takes; each part in ascending order.

    Attributes:
        recent: the newest due window and those within the lookback, to be done first.
        backlog: what is left open before them, to be done oldest first.
    """

    recent: tuple[Span, ...]
    backlog: tuple[Span, ...]

    def in_order(self) -> tuple[Span, ...]:
        """Everything in the order of the work: today's windows are not pushed behind years."""
        return (*self.recent, *self.backlog)


_UNKNOWN = WindowState(complete=False)


def select(
    owed: Sequence[Span],
    ledger: Mapping[Span, WindowState],
    lookback: timedelta,
    tz: Zone,
    *,
    whole: bool,
) -> Selection:
    """Choose a cycle's windows.

    Args:
        owed: every window that is due, ascending.
        ledger: what is known of them; one that is missing was never extracted.
        lookback: how far behind the newest due window's start windows are extracted again.
        tz: the org's zone: a day of lookback is a day of its calendar.
        whole: whether the lookback is taken along, as when a window fell due, with ``--once`` and SIGUSR1. If not,
            only what is unfinished or doubted is taken.
    """
    if not owed:
        return Selection((), ())
    since = lookback_start(owed[-1].start, lookback, tz)
    recent: list[Span] = []
    backlog: list[Span] = []
    for span in owed:
        near = span.start >= since
        if (near and whole) or ledger.get(span, _UNKNOWN).open:
            (recent if near else backlog).append(span)
    return Selection(tuple(recent), tuple(backlog))


def lookback_start(newest: datetime, lookback: timedelta, tz: Zone) -> datetime:
    """The earliest start within the lookback: whole days back by the calendar, the rest by elapsed time."""
    local = newest.astimezone(zone(tz)) - timedelta(days=lookback.days)
    return local.astimezone(UTC) - (lookback - timedelta(days=lookback.days))

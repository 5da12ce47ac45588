"""The selection of a cycle's windows, and their order."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.model import Span
from service.plan.calendar import Zone, zone


@dataclass(frozen=True, slots=True)
class WindowState:
    """The state of a window in the ledger.

    Attributes:
        complete: its figures are stored.
        doubted: complete, and a later scan was empty; a further scan has to confirm it.
        reread: complete, and to be extracted again for another reason.
    """

    complete: bool
    doubted: bool = False
    reread: bool = False

    @property
    def needs_work(self) -> bool:
        """Whether a cycle extracts the window even without the lookback."""
        return not self.complete or self.doubted or self.reread


@dataclass(frozen=True, slots=True)
class Selection:
    """The windows of a cycle; each part ascending.

    Attributes:
        recent: the newest due window and those within the lookback.
        backlog: windows before them that need work, or that the deep lookback adds.
    """

    recent: tuple[Span, ...]
    backlog: tuple[Span, ...]

    def in_order(self) -> tuple[Span, ...]:
        """All of them in the order of extraction: recent windows do not wait for a backlog."""
        return (*self.recent, *self.backlog)


_UNKNOWN = WindowState(complete=False)


def select(
    due: Sequence[Span],
    states: Mapping[Span, WindowState],
    lookback: timedelta,
    tz: Zone,
    *,
    with_lookback: bool,
    deep: Collection[Span] = (),
) -> Selection:
    """Select a cycle's windows.

    Args:
        due: every window that is due, ascending.
        states: their states; a window that is missing was never extracted.
        lookback: how far before the newest due window's start windows are extracted again.
        tz: the org's zone; a day of lookback is a day of its calendar.
        with_lookback: whether the windows within the lookback are extracted; otherwise only those that need work.
        deep: windows that the deep lookback adds.
    """
    if not due:
        return Selection((), ())
    since = lookback_start(due[-1].start, lookback, tz)
    recent: list[Span] = []
    backlog: list[Span] = []
    for span in due:
        near = span.start >= since
        if (near and with_lookback) or states.get(span, _UNKNOWN).needs_work or span in deep:
            (recent if near else backlog).append(span)
    return Selection(tuple(recent), tuple(backlog))


def lookback_start(newest: datetime, lookback: timedelta, tz: Zone) -> datetime:
    """The earliest start within the lookback: its days by the local calendar, the rest by elapsed time."""
    local = newest.astimezone(zone(tz)) - timedelta(days=lookback.days)
    return local.astimezone(UTC) - (lookback - timedelta(days=lookback.days))

"""What a job owes an org, and what the ledger knows of it: for who extracts it, and for who only reckons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from service.config import Job, Org
from service.model import Span, Window
from service.plan import granularity, selection, windows
from service.postgres.windows import LedgerWindow, work_of


def owed_spans(org: Org, job: Job, now: datetime) -> list[Span]:
    """Every window of the job that has rested by now, in order."""
    return windows.owed(job.window, job.since.resolve(now, org.tz), now, job.delay, org.tz)


def window_of(org: Org, job: Job, span: Span) -> Window:
    """A span that is owed, as it is entered in the ledger."""
    return Window(
        org.name,
        work_of(job.name),
        job.name,
        span,
        job.granularity,
        granularity.for_window(job.window, job.granularity),
        windows.due_at(span, job.delay, job.off_peak),
    )


def known_of(job: Job, listed: Iterable[LedgerWindow]) -> dict[Span, LedgerWindow]:
    """What of the job's windows is entered as it is configured now; those of a former granularity are not."""
    return {each.window.span: each for each in listed if each.window.requested == job.granularity}


def standings(known: Mapping[Span, LedgerWindow], flows: Collection[str]) -> dict[Span, selection.WindowState]:
    """What a cycle has to know of each window to take it or leave it."""
    return {
        span: selection.WindowState(
            complete=each.state == "complete",
            doubted=each.doubted,
            reread=each.state == "complete" and not each.settled(flows),
        )
        for span, each in known.items()
    }

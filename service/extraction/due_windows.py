"""A job's due windows, and their state in the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from service.config import Job, Org
from service.model import Measure, Span, Window
from service.plan import granularity, selection, windows
from service.postgres.windows import LedgerWindow, stream_of


def due_spans(org: Org, job: Job, now: datetime, pruned_before: datetime | None) -> list[Span]:
    """The spans of the job's windows that have settled, in order, from the org's prune date on."""
    since = job.since.resolve(now, org.tz)
    if pruned_before is None:
        return windows.settled_spans(job.window, since, now, job.delay, org.tz)
    spans = windows.settled_spans(job.window, max(since, pruned_before), now, job.delay, org.tz)
    return windows.since_bucket(spans, windows.first_bucket(job.window, job.granularity, pruned_before, org.tz))


def due_window(org: Org, job: Job, span: Span) -> Window:
    """The window of a due span, as it is entered in the ledger."""
    return Window(
        org.name,
        stream_of(job.name, job.measure),
        job.name,
        span,
        job.granularity,
        granularity.for_window(job.window, job.granularity),
        windows.due_at(span, job.delay, job.off_peak),
        measure=Measure(job.measure),
    )


def known_windows(job: Job, listed: Iterable[LedgerWindow]) -> dict[Span, LedgerWindow]:
    """The job's windows in the ledger by span; those of another configured granularity are left out."""
    return {each.window.span: each for each in listed if each.window.requested == job.granularity}


def window_states(known: Mapping[Span, LedgerWindow], flows: Collection[str]) -> dict[Span, selection.WindowState]:
    """The state of each window, from which a cycle's windows are selected."""
    return {
        span: selection.WindowState(
            complete=each.state == "complete",
            doubted=each.doubted,
            reread=each.state == "complete" and not each.settled(flows),
        )
        for span, each in known.items()
    }

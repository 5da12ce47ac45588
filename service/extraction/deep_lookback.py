"""The deep lookback: now and then, windows further back than the lookback are extracted again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from service.clock import Clock
from service.config import Job, Org
from service.extraction.retention_sync import RetentionSync
from service.model import Span
from service.plan.selection import lookback_start
from service.postgres.merge import Retention
from service.postgres.windows import DeepPass, DeepPasses, stream_of


def deep_spans(org: Org, job: Job, due: Sequence[Span], retention: Retention | None, now: datetime) -> list[Span]:
    """The windows of a pass: those of the deep lookback before the lookback, as far as the org keeps their data.

    Args:
        org: whose job.
        job: the job.
        due: every window that is due, ascending.
        retention: the org's; None where figures do not expire.
        now: the time from which the retention counts back.
    """
    if job.deep_lookback is None or not due:
        return []
    newest = due[-1].start
    since = lookback_start(newest, job.deep_lookback.span, org.tz)
    if retention is not None and retention.kept is not None:
        since = max(since, retention.limit(now))
    until = lookback_start(newest, job.lookback, org.tz)
    return [span for span in due if since <= span.start < until]


def next_pass(job: Job, state: DeepPass) -> datetime | None:
    """When the next pass is due, or the one in progress was; None for none, and before the job began."""
    if job.deep_lookback is None or state.last is None:
        return None
    return state.last + job.deep_lookback.every


class DeepLookback:
    """The passes of one org's jobs.

    Args:
        passes: where they are kept.
        retention: the org's retention.
        clock: the process's clock.
    """

    def __init__(self, passes: DeepPasses, retention: RetentionSync, clock: Clock) -> None:
        self._passes = passes
        self._retention = retention
        self._clock = clock

    async def begin(self, org: Org, job: Job, due: Sequence[Span]) -> frozenset[Span]:
        """The windows that a cycle extracts for it: those that a due pass has not read yet, else none.

        Raises:
            DatabaseUnavailableError, LeaseLostError: nothing was begun.
        """
        state = await self._passes.read(stream_of(job.name, job.measure))
        at = next_pass(job, state)
        if at is None or (self._clock.now() < at and state.from_scan is None):
            return frozenset()
        await self._retention.refresh()
        await self._passes.begin(stream_of(job.name, job.measure))
        return frozenset(await self._remaining(org, job, due))

    async def end(self, org: Org, job: Job, due: Sequence[Span]) -> bool:
        """Complete the pass in progress if all of its windows were read; whether none is in progress then.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        if (
            job.deep_lookback is None
            or (await self._passes.read(stream_of(job.name, job.measure))).from_scan is None
        ):
            return True
        if await self._remaining(org, job, due):
            return False
        await self._passes.complete(stream_of(job.name, job.measure), self._clock.now())
        return True

    async def due_at(self, job: Job) -> datetime | None:
        """When a pass is due; None where the job has no deep lookback or has not begun.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        if job.deep_lookback is None:
            return None
        return next_pass(job, await self._passes.read(stream_of(job.name, job.measure)))

    async def _remaining(self, org: Org, job: Job, due: Sequence[Span]) -> Collection[Span]:
        spans = deep_spans(org, job, due, self._retention.current(), self._clock.now())
        return (await self._passes.remaining(stream_of(job.name, job.measure))).intersection(spans)

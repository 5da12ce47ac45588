"""One org at work: a job's cycle from what is owed to what is stored, and the work that was asked for ad hoc."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.ad_hoc import ad_hoc_windows
from service.clock import Clock
from service.config import AdHoc, Job, Org
from service.errors import (
    CircuitOpenError,
    DatabaseAwayError,
    ExtractionError,
    GranularityError,
    LeaseLostError,
    PageError,
    RateLimitedError,
)
from service.gate import Gate, GateClosedError
from service.genesys.client import GenesysClient
from service.model import Granularity, Scan, Span, Window
from service.pipeline import Pipeline, about
from service.plan import due, granularity, scans, windows
from service.plan.scans import MetricsDelay, OrgSettings
from service.postgres.ledger import AD_HOC, Ledger, LedgerWindow, ask, work_of
from service.postgres.lease import Lease
from service.postgres.partitions import Partitions
from service.postgres.pool import Database

Emit = Callable[..., None]

# Who begins first where scans wait: today's figures, then what was asked for by hand, then the backlog.
RECENT, BY_HAND, BACKLOG = range(3)

_BUCKET_SECONDS = {Granularity.HOURLY: 3600.0, Granularity.DAILY: 86400.0, Granularity.MONTHLY: 30 * 86400.0}


@dataclass(frozen=True)
class Terms:
    """On what terms windows are asked for: a job's, or those of ad hoc work.

    Attributes:
        delay: the delay buffer.
        metrics_delay: its mode.
        expect_for: how long an outcome once seen is expected.
        may_begin: whether a scan may begin at this moment; the off-peak hours.
        coarsest: the coarsest granularity that a refusal may lead to.
    """

    delay: timedelta
    metrics_delay: MetricsDelay
    expect_for: timedelta
    may_begin: Callable[[datetime], bool]
    coarsest: Granularity


@dataclass
class Tally:
    """What a cycle came to, in windows."""

    complete: int = 0
    doubted: int = 0
    failed: int = 0
    put_back: int = 0

    @property
    def unfinished(self) -> int:
        """Windows that were due and are not stored."""
        return self.failed + self.put_back


class GivenUpError(Exception):
    """The org is left alone for the rest of this run."""


class OrgWorker:
    """Runs the cycles of one org for as long as its lease is good.

    Args:
        org: its configuration; replaced as a whole at a reload.
        client: asks its API.
        lease: the hold on it.
        database: where the figures go.
        clock: the time.
        emit: told every event.
        gives_up: with ``--once``: an open breaker or a long Retry-After ends the run instead of being waited out.
    """

    def __init__(
        self,
        org: Org,
        client: GenesysClient,
        lease: Lease,
        database: Database,
        clock: Clock,
        emit: Emit,
        *,
        gives_up: bool = False,
    ) -> None:
        self.org = org
        self.client = client
        self.lease = lease
        self.gate = Gate(org.concurrency)
        self._clock = clock
        self._emit = emit
        self._gives_up = gives_up
        self._database = database
        self._ledger = Ledger(database, org.name, lease.epoch)
        self._pipeline = Pipeline(client, database, self._ledger, lease, clock, emit)
        self._partitions = Partitions(database)

    @property
    def settings(self) -> OrgSettings:
        """What of the configuration shapes queries."""
        org = self.org
        return OrgSettings(org.name, org.timezone, org.flows, org.page_size, org.concurrency)

    async def prepare(self) -> None:
        """Put back what a former owner left; call it once, before the first cycle.

        Raises:
            DatabaseAwayError: the database is away.
        """
        await self._ledger.recover()

    async def cycle(self, job: Job, *, whole: bool, any_time: bool = False) -> Tally:
        """One pass over a job's due windows.

        Args:
            job: the job.
            whole: whether the lookback is taken along, or only what is unfinished or doubted.
            any_time: whether the off-peak hours do not matter.

        Raises:
            DatabaseAwayError, LeaseLostError: it ended early; what was not stored stays due.
        """
        terms = Terms(
            delay=job.delay,
            metrics_delay=job.metrics_delay,
            expect_for=job.expect_for,
            may_begin=(lambda _: True) if any_time or job.off_peak is None else job.off_peak.contains,
            coarsest=_coarsest(job.window),
        )
        taken, known = await self._owed(job, whole=whole)
        found = [known[span] for span in taken.in_order()]
        cycle, tally = uuid.uuid4().hex, Tally()
        self._emit("cycle_started", org=self.org.name, job=job.name, windows=len(found), cycle=cycle)
        recent = set(taken.recent)
        try:
            await self._run(
                found, terms, cycle, tally, lambda window: RECENT if window.span in recent else BACKLOG
            )
        finally:
            self._finished(job.name, cycle, tally)
        return tally

    async def ad_hoc(self, only: Sequence[Window] | None = None) -> Tally:
        """Extract what was asked for ad hoc and is not stored yet, or just these windows of it.

        Raises:
            DatabaseAwayError, LeaseLostError: it ended early; what was not stored stays due.
        """
        wanted = None if only is None else {(window.span, window.requested) for window in only}
        found = [
            each
            for each in await self._ledger.windows(AD_HOC)
            if (not each.settled(self.org.flows) or each.doubted)
            and (wanted is None or (each.window.span, each.window.requested) in wanted)
        ]
        cycle, tally = uuid.uuid4().hex, Tally()
        if not found:
            return tally
        self._emit("cycle_started", org=self.org.name, job=None, windows=len(found), cycle=cycle)
        try:
            await self._run(found, AD_HOC_TERMS, cycle, tally, lambda _: BY_HAND)
        finally:
            self._finished(None, cycle, tally)
        return tally

    async def request(self, entry: AdHoc, *, again: bool) -> list[Window]:
        """Enter an ad hoc span in the ledger, in the windows that it can be had in; tells these.

        Args:
            entry: what is asked for. One of the configuration has a name, and is asked for once for its content
                unless ``again`` says so.
            again: whether it is read once more where it is stored already; what is unfinished only goes on.

        Raises:
            DatabaseAwayError: the database is away.
        """
        if entry.name and not again and await self._ledger.entry_known(entry.name, entry.content_hash):
            return []
        found = ad_hoc_windows(self.org, entry, self._clock.now())
        if not found.windows:
            return []
        if found.moved:
            self._emit(
                "span_adjusted",
                org=self.org.name,
                job=None,
                window_start=found.windows[0].span.start,
                window_end=found.windows[-1].span.end,
                asked_from=entry.start,
                asked_to=entry.end,
            )
        if found.coarsened:
            for window in found.windows:
                self._emit_adjusted(window, "the span is too wide for the granularity that was asked for")
        # where nothing is left to do, asking means once more; else it means going on
        await ask(self._database, found.windows, again=await self._ledger.all_settled(found.windows, self.org.flows))
        if entry.name:
            await self._ledger.enter(entry.name, entry.content_hash)
        return list(found.windows)

    def _finished(self, job: str | None, cycle: str, tally: Tally) -> None:
        self._emit(
            "cycle_finished",
            org=self.org.name,
            job=job,
            cycle=cycle,
            complete=tally.complete,
            doubted=tally.doubted,
            failed=tally.failed,
            put_back=tally.put_back,
        )

    async def _owed(self, job: Job, *, whole: bool) -> tuple[due.Taken, dict[Span, LedgerWindow]]:
        """What the job owes by now, entered in the ledger, and what of it a cycle takes."""
        now, tz = self._clock.now(), self.org.tz
        spans = windows.owed(job.window, job.since.resolve(now, tz), now, job.delay, tz)
        work, step = work_of(job.name), granularity.for_window(job.window, job.granularity)
        known = await self._known(job, work)
        new = [
            Window(
                self.org.name,
                work,
                job.name,
                span,
                job.granularity,
                step,
                windows.due_at(span, job.delay, job.off_peak),
            )
            for span in spans
            if span not in known
        ]
        owed = set(spans)
        gone = [each.window for span, each in known.items() if span not in owed and each.state != "complete"]
        if gone:
            await self._ledger.forget(gone)
        if new:
            await self._ledger.owe(new)
            if job.granularity not in ("auto", step):
                for window in new:
                    self._emit_adjusted(window, "the window is too wide for the granularity that was asked for")
            known = await self._known(job, work)
        standings = {
            span: due.Standing(
                complete=each.state == "complete",
                doubted=each.doubted,
                reread=each.state == "complete" and not each.settled(self.org.flows),
            )
            for span, each in known.items()
        }
        return due.take(spans, standings, job.lookback, tz, whole=whole), known

    async def _known(self, job: Job, work: str) -> dict[Span, LedgerWindow]:
        return {
            each.window.span: each
            for each in await self._ledger.windows(work)
            if each.window.requested == job.granularity
        }

    async def _run(
        self,
        found: Sequence[LedgerWindow],
        terms: Terms,
        cycle: str,
        tally: Tally,
        priority: Callable[[Window], int],
    ) -> None:
        """Join the windows into scans and run these, until there is none left that may begin."""
        alone = [each.window.span for each in found if each.ask_alone]
        waiting = [each.window for each in found]
        while waiting:
            first = waiting[0]
            group = [w for w in waiting if (w.work, w.requested, w.granularity) == _kind(first)]
            rest = [w for w in waiting if (w.work, w.requested, w.granularity) != _kind(first)]
            entries = await self._ledger.entries_per_bucket(
                first.work, first.granularity, _BUCKET_SECONDS[first.granularity]
            )
            joined = scans.join(
                group,
                self.settings,
                entries_per_bucket=max(entries, 1.0) if entries is not None else len(self.org.flows) or None,
                delay=terms.delay,
                metrics_delay=terms.metrics_delay,
                alone=alone,
            )
            await self._together(
                [
                    self._one(self._scan(each, terms), terms, cycle, tally, priority(each[0]))
                    for each in joined.scans
                ]
            )
            waiting = joined.later + rest

    async def _together(self, work: Sequence[Coroutine[None, None, None]]) -> None:
        """Run all of them; the first that cannot go on ends the others."""
        try:
            async with asyncio.TaskGroup() as group:
                for each in work:
                    group.create_task(each)
        except* (DatabaseAwayError, LeaseLostError, GivenUpError, GateClosedError) as errors:
            raise _first(errors) from None

    def _scan(self, joined: Sequence[Window], terms: Terms) -> Scan:
        span = Span(joined[0].span.start, joined[-1].span.end)
        asked = scans.queries(
            span,
            joined[0].granularity,
            self.settings,
            delay=terms.delay,
            metrics_delay=terms.metrics_delay,
            now=self._clock.now(),
        )
        return Scan(tuple(joined), asked, terms.expect_for)

    async def _one(self, scan: Scan, terms: Terms, cycle: str, tally: Tally, priority: int) -> None:
        """Run one scan; what fails because windows were asked together is asked one by one."""
        try:
            await self._extract(scan, terms, cycle, tally, priority)
        except (PageError, GranularityError) as error:
            if len(scan.windows) > 1:
                self._emit("scan_split", **about(scan), windows=len(scan.windows), reason=str(error))
                await self._ledger.interrupt(scan, str(error), ask_alone=isinstance(error, PageError))
                for window in scan.windows:
                    await self._one(self._scan([window], terms), terms, cycle, tally, priority)
                return
            coarser = self._coarser(scan.windows[0], terms) if isinstance(error, GranularityError) else None
            if coarser is None:
                await self._failed(scan, error, tally)
                return
            self._emit_adjusted(coarser, str(error))
            await self._ledger.replace(scan.windows[0], coarser)
            await self._once_coarser(coarser, terms, cycle, tally, priority)
        except ExtractionError as error:
            await self._failed(scan, error, tally)

    async def _once_coarser(self, window: Window, terms: Terms, cycle: str, tally: Tally, priority: int) -> None:
        scan = self._scan([window], terms)
        try:
            await self._extract(scan, terms, cycle, tally, priority)
        except ExtractionError as error:
            await self._failed(scan, error, tally)

    async def _extract(self, scan: Scan, terms: Terms, cycle: str, tally: Tally, priority: int) -> None:
        while True:
            try:
                async with self.gate.enter(scan, priority):
                    if not terms.may_begin(self._clock.now()):
                        tally.put_back += len(scan.windows)
                        return
                    await self._partitions.ensure(scan.span)
                    merged = await self._pipeline.extract(scan, cycle)
            except CircuitOpenError as error:
                if self._gives_up:
                    await self._failed(scan, error, tally)
                    raise GivenUpError(str(error)) from error
                await self._ledger.interrupt(scan, str(error))
                await asyncio.sleep(error.retry_after)
            except RateLimitedError as error:
                await self._failed(scan, error, tally)
                raise GivenUpError(str(error)) from error
            except (DatabaseAwayError, LeaseLostError, GateClosedError):
                tally.put_back += len(scan.windows)
                raise
            except asyncio.CancelledError:
                tally.put_back += len(scan.windows)
                await self._put_back(scan)
                raise
            else:
                tally.doubted += len(merged.doubted)
                tally.complete += len(scan.windows) - len(merged.doubted)
                return

    async def _put_back(self, scan: Scan) -> None:
        """Note that a scan was stopped; where that cannot be done in time, the next owner's start does it."""
        with contextlib.suppress(DatabaseAwayError, TimeoutError):
            async with asyncio.timeout(3):
                await self._ledger.interrupt(scan)

    async def _failed(self, scan: Scan, error: ExtractionError, tally: Tally) -> None:
        tally.failed += len(scan.windows)
        reason = f"{error} ({error.hint})" if error.hint else str(error)
        for window in scan.windows:
            self._emit(
                "window_failed",
                org=window.org,
                job=window.job,
                window_start=window.span.start,
                window_end=window.span.end,
                query_hash=self.client.dialect.query_hash(scan.queries[0]),
                reason=reason,
                status=error.status,
                code=error.code,
                context_id=error.context_id,
            )
        await self._ledger.fail(scan, reason)

    def _coarser(self, window: Window, terms: Terms) -> Window | None:
        """The window one step coarser, where that is allowed: never twice, and a job's never past itself."""
        step = granularity.coarser(window.granularity)
        if step is None or list(Granularity).index(step) > list(Granularity).index(terms.coarsest):
            return None
        if window.job is not None:
            return replace(window, granularity=step)
        adjusted = granularity.adjust(
            window.span, step.value, self.org.tz, self._clock.now() - terms.delay, coarsest=step
        )
        return None if adjusted is None else replace(window, span=adjusted.span, granularity=step)

    def _emit_adjusted(self, window: Window, reason: str) -> None:
        self._emit(
            "granularity_adjusted",
            org=window.org,
            job=window.job,
            window_start=window.span.start,
            window_end=window.span.end,
            requested=window.requested,
            granularity=window.granularity.value,
            reason=reason,
        )


AD_HOC_TERMS = Terms(
    delay=timedelta(hours=1),
    metrics_delay="auto",
    expect_for=timedelta(days=31),
    may_begin=lambda _: True,
    coarsest=Granularity.MONTHLY,
)


def _coarsest(window: str) -> Granularity:
    return {"hour": Granularity.HOURLY, "month": Granularity.MONTHLY}.get(window, Granularity.DAILY)


def _kind(window: Window) -> tuple[str, str, Granularity]:
    return window.work, window.requested, window.granularity


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error

"""One org at work: a job's cycle from what is owed to what is stored, and the work that was asked for ad hoc."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from service.clock import Clock, ClockMonitor
from service.config import AdHoc, Job, Org
from service.errors import LeaseLostError
from service.extraction.ad_hoc import AdHocWindows, ad_hoc_windows, aligned, aligned_anew
from service.extraction.cycle import CyclePolicy, CycleResult
from service.extraction.due_windows import known_of, owed_spans, standings, window_of
from service.extraction.name_sync import NameSync
from service.extraction.pipeline import Pipeline
from service.extraction.scanner import BACKLOG, BY_HAND, RECENT, Scanner
from service.genesys import GenesysClient
from service.model import Granularity, Span, Window
from service.plan import selection
from service.postgres.lease import Lease
from service.postgres.merge import Partitions
from service.postgres.pool import Database
from service.postgres.windows import AD_HOC, Ledger, LedgerWindow, ask, work_of

Emit = Callable[..., None]


@dataclass
class CycleRequest:
    """What a cycle is to take along. It may be added to while the cycle runs, and counts from the next scan on.

    Attributes:
        whole: the lookback, and not only what is unfinished or doubted; None leaves it to the cycle, which takes
            it along where a window fell due that is not stored yet, and says so here.
        ignore_off_peak: the off-peak hours do not matter.
        stop: no scan begins any more.
    """

    whole: bool | None = None
    ignore_off_peak: bool = False
    stop: bool = False

    def may_begin(self, job: Job, at: datetime) -> bool:
        """Whether a scan of the job may begin at this moment."""
        return not self.stop and self.in_hours(job, at)

    def in_hours(self, job: Job, at: datetime) -> bool:
        """Whether a query of the job may begin at this moment, of a scan that has begun."""
        return self.ignore_off_peak or job.off_peak is None or job.off_peak.contains(at)


class OrgWorker:
    """Runs the cycles of one org for as long as its lease is good.

    Args:
        org: its configuration; replaced as a whole at a reload.
        client: asks its API.
        lease: the hold on it.
        database: where the figures go.
        clock: the time.
        emit: told every event.
        monitor: compares the clocks; the process's own where it has one.
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
        monitor: ClockMonitor | None = None,
        gives_up: bool = False,
    ) -> None:
        self.client = client
        self.lease = lease
        self._clock = clock
        self._emit = emit
        self._database = database
        self._ledger = Ledger(database, org.name, lease.epoch)
        self._naming = NameSync(client, lease, database, clock, emit)
        monitor = monitor or ClockMonitor(clock, emit)
        pipeline = Pipeline(client, database, self._ledger, lease, clock, monitor, emit)
        self.scanner = Scanner(
            org, client, self._ledger, pipeline, Partitions(database), clock, emit, gives_up=gives_up
        )

    @property
    def org(self) -> Org:
        """The org's configuration."""
        return self.scanner.org

    async def prepare(self) -> None:
        """Put back what a former owner left; call it once, before the first cycle.

        Raises:
            DatabaseUnavailableError: the database is away.
        """
        await self._ledger.recover()

    def configure(self, org: Org) -> None:
        """Take over the org's changed configuration; what is in flight goes on as it began."""
        self.scanner.configure(org)
        self.client.requests_per_second = org.requests_per_second
        self.client.query_timeout = org.query_timeout
        self.client.breaker.configure(org.breaker.failures, org.breaker.open_for)

    async def look_at_names(self) -> None:
        """See how flows and outcomes are called now, however lately that was done.

        Raises:
            DatabaseUnavailableError, LeaseLostError: it was not seen.
        """
        self._naming.invalidate()
        await self._naming.refresh()

    async def cycle(self, job: Job, wish: CycleRequest) -> CycleResult:
        """One pass over a job's due windows.

        Raises:
            DatabaseUnavailableError, LeaseLostError: it ended early; what was not stored stays due.
        """
        terms = CyclePolicy(
            delay=job.delay,
            metrics_delay=job.metrics_delay,
            expect_for=job.expect_for,
            may_begin=lambda at: wish.may_begin(job, at),
            in_hours=lambda at: wish.in_hours(job, at),
            coarsest=_coarsest(job.window),
        )
        taken, known = await self._owed(job, wish)
        found = [known[span] for span in taken.in_order()]
        cycle, tally = uuid.uuid4().hex, CycleResult()
        if not found:
            return tally
        if not terms.may_begin(self._clock.now()):
            tally.put_back = len(found)
            return tally
        self._emit("cycle_started", org=self.org.name, job=job.name, windows=len(found), cycle=cycle)
        recent = set(taken.recent)
        try:
            await self._naming.refresh()
            await self.scanner.run(
                found, terms, cycle, tally, lambda window: RECENT if window.span in recent else BACKLOG
            )
            await self._reopen(work_of(job.name), job.delay)
        finally:
            self._finished(job.name, cycle, tally)
        return tally

    async def ad_hoc(self, only: Sequence[Window] | None = None) -> CycleResult:
        """Extract what was asked for ad hoc and is not stored yet, or just these windows of it.

        Raises:
            DatabaseUnavailableError, LeaseLostError: it ended early; what was not stored stays due.
        """
        wanted = None if only is None else {(window.span, window.requested) for window in only}
        await self._align()
        await self._reopen(AD_HOC, AD_HOC_TERMS.delay)
        found = [
            each
            for each in await self._ledger.windows(AD_HOC)
            if (not each.settled(self.org.flows) or each.doubted)
            and (wanted is None or (each.window.span, each.window.requested) in wanted)
            and aligned(self.org, each.window)
        ]
        cycle, tally = uuid.uuid4().hex, CycleResult()
        if not found:
            return tally
        self._emit("cycle_started", org=self.org.name, job=None, windows=len(found), cycle=cycle)
        try:
            await self._naming.refresh()
            await self.scanner.run(found, AD_HOC_TERMS, cycle, tally, lambda _: BY_HAND)
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
            DatabaseUnavailableError: the database is away.
        """
        if entry.name and not again and await self._ledger.entry_known(entry.name, entry.content_hash):
            return []
        found = ad_hoc_windows(self.org, entry, self._clock.now())
        if not found.windows:
            return []
        if found.moved:
            self._tell_moved(found, entry.start, entry.end)
        if found.coarsened:
            for window in found.windows:
                self.scanner.tell_adjusted(window, "the span is too wide for the granularity that was asked for")
        # where nothing is left to do, asking means once more; else it means going on
        await ask(
            self._database, found.windows, again=await self._ledger.all_settled(found.windows, self.org.flows)
        )
        if entry.name:
            await self._ledger.enter(entry.name, entry.content_hash)
        return list(found.windows)

    async def _align(self) -> None:
        """Owe what is unfinished of the ad hoc windows where the org's time zone has its edges now."""
        for each in await self._ledger.windows(AD_HOC):
            if each.state == "complete" or aligned(self.org, each.window):
                continue
            found = aligned_anew(self.org, each.window, self._clock.now())
            await self._ledger.forget([each.window])
            if found.windows:
                await ask(self._database, found.windows, again=False)
                self._tell_moved(found, each.window.span.start, each.window.span.end)

    def _tell_moved(self, found: AdHocWindows, asked_from: date, asked_to: date) -> None:
        self._emit(
            "span_adjusted",
            org=self.org.name,
            job=None,
            window_start=found.windows[0].span.start,
            window_end=found.windows[-1].span.end,
            asked_from=asked_from,
            asked_to=asked_to,
        )

    def _finished(self, job: str | None, cycle: str, tally: CycleResult) -> None:
        self._emit(
            "cycle_finished",
            org=self.org.name,
            job=job,
            cycle=cycle,
            complete=tally.complete,
            postponed=tally.postponed,
            doubted=tally.doubted,
            failed=tally.failed,
            put_back=tally.put_back,
        )

    async def _reopen(self, work: str, delay: timedelta) -> None:
        """Make due again what a wrong clock completed too early, as far as the clocks known by now can say."""
        server, now = self.client.server_clock, self._clock.now()
        server_time = now if server.undated else server.now()
        latest = None if server_time is None else max(server_time, now)
        reopened = await self._ledger.reopen(work, delay, latest)
        if reopened:
            self._emit(
                "window_reopened",
                org=self.org.name,
                job=None if work == AD_HOC else work.removeprefix("job:"),
                window_start=reopened[0].start,
                window_end=reopened[-1].end,
                windows=len(reopened),
                reason="a clock that was ahead completed them before their end",
            )

    async def _owed(self, job: Job, wish: CycleRequest) -> tuple[selection.Selection, dict[Span, LedgerWindow]]:
        """What the job owes by now, entered in the ledger, and what of it a cycle takes."""
        await self._reopen(work_of(job.name), job.delay)
        spans = owed_spans(self.org, job, self._clock.now())
        known = await self._known(job)
        new = [window_of(self.org, job, span) for span in spans if span not in known]
        owed = set(spans)
        gone = [each.window for span, each in known.items() if span not in owed and each.state != "complete"]
        if gone:
            await self._ledger.forget(gone)
        if new:
            await self._ledger.enqueue(new)
            if job.granularity not in ("auto", new[0].granularity):
                for window in new:
                    self.scanner.tell_adjusted(
                        window, "the window is too wide for the granularity that was asked for"
                    )
            known = await self._known(job)
            if any(window.span not in known for window in new):
                raise LeaseLostError(f"{self.org.name} is another process's by now")
        standing = standings(known, self.org.flows)
        if wish.whole is None:
            # Where the ledger has windows of the future, only the API's clock can say whether they are: ask it.
            wish.whole = bool(spans) and (
                not standing[spans[-1]].complete
                or await self._ledger.completed_after(work_of(job.name), self._clock.now())
            )
        return selection.select(spans, standing, job.lookback, self.org.tz, whole=wish.whole), known

    async def _known(self, job: Job) -> dict[Span, LedgerWindow]:
        return known_of(job, await self._ledger.windows(work_of(job.name)))


AD_HOC_TERMS = CyclePolicy(
    delay=timedelta(hours=1),
    metrics_delay="auto",
    expect_for=timedelta(days=31),
    may_begin=lambda _: True,
    in_hours=lambda _: True,
    coarsest=Granularity.MONTHLY,
)


def _coarsest(window: str) -> Granularity:
    return {"hour": Granularity.HOURLY, "month": Granularity.MONTHLY}.get(window, Granularity.DAILY)

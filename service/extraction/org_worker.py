"""One org's cycles: a job's due windows, and ad hoc windows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

from service.clock import Clock, ClockMonitor
from service.config import AdHoc, Job, Org
from service.errors import LeaseLostError
from service.extraction.ad_hoc import AdHocWindows, ad_hoc_windows, is_aligned, prune_problem, realigned
from service.extraction.cycle import AD_HOC_POLICY, Cycle, CycleRequest, CycleResult, Scope
from service.extraction.deep_lookback import DeepLookback
from service.extraction.due_windows import due_spans, due_window, known_windows, window_states
from service.extraction.name_sync import NameSync
from service.extraction.pipeline import Pipeline
from service.extraction.retention_sync import RetentionSync
from service.extraction.scanner import Scanner
from service.extraction.splitter import Splitter
from service.genesys import GenesysClient
from service.model import Span, Window
from service.plan import selection
from service.postgres.lease import Lease
from service.postgres.merge import MemoryBudget, Partitions
from service.postgres.pool import Database
from service.postgres.prune_dates import current_prune_date
from service.postgres.windows import AD_HOC, DeepPasses, Ledger, LedgerWindow, job_of, request_windows, stream_of
from service.telemetry import Emit, Event, traces


class WorkerLoad(NamedTuple):
    """An org's scans: those in flight, and those that wait for a slot."""

    in_flight: int
    waiting: int


class OrgWorker:
    """Runs the cycles of one org while its lease is held.

    Args:
        org: its configuration; ``configure`` replaces it.
        client: its API.
        lease: this process's hold on the org.
        database: where figures are stored.
        clock: the process's clock.
        emit: receives the events.
        monitor: compares the clocks; by default one of its own.
        budget: memory for scans; by default one of its own.
        gives_up: whether an open breaker or a long ``Retry-After`` ends the run instead of being waited out, as
            with ``--once``.
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
        budget: MemoryBudget | None = None,
        gives_up: bool = False,
    ) -> None:
        self.client = client
        self.lease = lease
        self._clock = clock
        self._emit = emit
        self._database = database
        self._ledger = Ledger(database, org.name, lease.epoch)
        self._refused: dict[str, str] = {}  # content of the ad hoc entries that were reported as refused
        self._names = NameSync(client, lease, database, clock, emit)
        self._retention = RetentionSync(org, client, lease, database, clock)
        self._deep = DeepLookback(DeepPasses(database, org.name, lease.epoch), self._retention, clock)
        monitor = monitor or ClockMonitor(clock, emit)
        splitter = Splitter(self._ledger.splits(org.api), clock, emit)
        pipeline = Pipeline(
            client,
            database,
            self._ledger,
            splitter,
            lease,
            clock,
            monitor,
            emit,
            budget or MemoryBudget(),
            self._retention.current,
        )
        self._scanner = Scanner(
            org,
            client,
            self._ledger,
            splitter,
            pipeline,
            Partitions(database, clock, emit),
            clock,
            emit,
            gives_up=gives_up,
        )

    @property
    def org(self) -> Org:
        """The org's configuration."""
        return self._scanner.org

    def load(self) -> WorkerLoad:
        """The number of scans in flight and waiting."""
        admission = self._scanner.admission
        return WorkerLoad(admission.in_flight, admission.waiting)

    def close(self) -> None:
        """Start no further scan; scans in flight continue."""
        self._scanner.admission.close()

    async def prepare(self) -> None:
        """Requeue the windows that a former owner left running; call once, before the first cycle.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        await self._ledger.recover()

    def configure(self, org: Org) -> None:
        """Apply the org's changed configuration; scans in flight keep the former one."""
        self._scanner.configure(org)
        self._retention.org = org
        self.client.requests_per_second = org.requests_per_second
        self.client.rate_ceiling = org.rate_ceiling
        self.client.query_timeout = org.query_timeout
        self.client.breaker.configure(org.breaker.failures, org.breaker.open_for)

    async def refresh_names(self) -> None:
        """Read the names of flows and outcomes now, whether or not they are due.

        Raises:
            DatabaseUnavailableError, LeaseLostError: the names were not stored.
        """
        self._names.invalidate()
        await self._names.refresh(self.org.measures)

    async def run_cycle(self, job: Job, cycle: Cycle) -> CycleResult:
        """Extract a job's due windows once.

        Raises:
            DatabaseUnavailableError, LeaseLostError, GivenUpError: windows that were not stored stay due.
        """
        windows = await self._select(job, cycle)
        if windows and not cycle.may_start_scan():
            cycle.result.requeued = len(windows)
            return cycle.result
        if windows:
            await self._run(windows, job, cycle)
        await self._end_deep_lookback(job, cycle)
        return cycle.result

    async def _end_deep_lookback(self, job: Job, cycle: Cycle) -> None:
        """Complete a pass that is read to its end, and note when the next one is due."""
        ended = await self._deep.end(self.org, job, await self._due(job))
        included = cycle.request.deep or cycle.request.scope is Scope.LOOKBACK
        if ended or not included:
            cycle.result.deep_at = await self._deep.due_at(job)

    async def run_ad_hoc(self, only: Sequence[Window] | None = None) -> CycleResult:
        """Extract the ad hoc windows that are not settled, or those of ``only`` among them.

        Raises:
            DatabaseUnavailableError, LeaseLostError, GivenUpError: windows that were not stored stay due.
        """
        cycle = Cycle(AD_HOC_POLICY, CycleRequest(Scope.OPEN), self._clock)
        wanted = None if only is None else {window.request for window in only}
        await self._align()
        await self._reopen(AD_HOC, cycle.policy.delay)
        windows = [
            each
            for each in await self._without_pruned(await self._ledger.windows(AD_HOC))
            if (not each.settled(self.org.flows) or each.doubted)
            and (wanted is None or each.window.request in wanted)
            and is_aligned(self.org, each.window)
        ]
        return await self._run(windows, None, cycle) if windows else cycle.result

    async def enqueue(self, entry: AdHoc, *, again: bool) -> list[Window]:
        """Enter an ad hoc span in the ledger.

        Args:
            entry: the span. A named entry, from the configuration, is entered once for its content unless
                ``again`` is set.
            again: whether a span that is already stored is extracted once more; unfinished windows just continue.

        Returns:
            Its windows; empty where nothing is entered, as where they start before the org's prune date.

        Raises:
            DatabaseUnavailableError: the database is unavailable.
        """
        if entry.name and not again and await self._ledger.has_entry(entry.name, entry.content_hash):
            return []
        planned = ad_hoc_windows(self.org, entry, self._clock.now())
        if not planned.windows:
            return []
        if problem := prune_problem(self.org, planned, await self._pruned_before()):
            self._report_refused(entry, planned, problem, again=again)
            return []
        if planned.moved:
            self._report_moved(planned, entry.start, entry.end)
        if planned.coarsened:
            for window in planned.windows:
                self._scanner.report_adjusted(window, "the span is too wide for the requested granularity")
        # where all windows are settled, a second request means a new extraction; otherwise it continues the first
        settled = await self._ledger.all_settled(planned.windows, self.org.flows)
        await request_windows(self._database, planned.windows, again=settled)
        if entry.name:
            await self._ledger.note_entry(entry.name, entry.content_hash)
        return list(planned.windows)

    async def _run(self, windows: Sequence[LedgerWindow], job: Job | None, cycle: Cycle) -> CycleResult:
        spans = [each.window.span for each in windows]
        with traces.span(
            "cycle",
            org=self.org.name,
            job=job and job.name,
            cycle=cycle.id,
            windows=len(windows),
            window_start=min(each.start for each in spans),
            window_end=max(each.end for each in spans),
        ) as running:
            try:
                return await self._run_windows(windows, job, cycle)
            finally:
                result = cycle.result
                running.set(complete=result.complete, failed=result.failed, requeued=result.requeued)

    async def _run_windows(self, windows: Sequence[LedgerWindow], job: Job | None, cycle: Cycle) -> CycleResult:
        context = {"org": self.org.name, "job": job and job.name, "cycle": cycle.id}
        result = cycle.result
        self._emit(Event.CYCLE_STARTED, **context, windows=len(windows))
        try:
            await self._names.refresh({*self.org.measures, *(each.window.measure for each in windows)})
            await self._retention.refresh()
            await self._scanner.run(windows, cycle)
            if job is not None:  # ad hoc windows are reopened at the start of their cycle alone
                await self._reopen(stream_of(job.name, job.measure), job.delay)
        finally:
            self._emit(
                Event.CYCLE_FINISHED,
                **context,
                complete=result.complete,
                postponed=result.postponed,
                doubted=result.doubted,
                failed=result.failed,
                requeued=result.requeued,
            )
        return result

    async def _select(self, job: Job, cycle: Cycle) -> list[LedgerWindow]:
        """Enter the job's due windows in the ledger, delete those no longer due, and select the cycle's.

        Raises:
            LeaseLostError: the ledger accepted no entry, because another process holds the org.
        """
        await self._reopen(stream_of(job.name, job.measure), job.delay)
        pruned_before = await self._pruned_before()
        spans = due_spans(self.org, job, self._clock.now(), pruned_before)
        known = await self._known(job)
        new = [due_window(self.org, job, span) for span in spans if span not in known]
        due = set(spans)
        gone = [each.window for span, each in known.items() if span not in due and each.state != "complete"]
        if gone:
            await self._ledger.delete(gone)
        if new:
            await self._ledger.enqueue(new)
            if job.granularity not in ("auto", new[0].granularity):
                for window in new:
                    self._scanner.report_adjusted(window, "the window is too wide for the requested granularity")
            known = await self._known(job)
            if any(window.span not in known for window in new):
                if await self._pruned_before() != pruned_before:
                    return await self._select(job, cycle)
                raise LeaseLostError(f"another process holds {self.org.name}")
        states = window_states(known, self.org.flows)
        scope = await self._scope(job, cycle.request.scope, states[spans[-1]] if spans else None)
        with_lookback = scope is Scope.LOOKBACK
        deep: frozenset[Span] = frozenset()
        if with_lookback or cycle.request.deep:
            deep = await self._deep.begin(self.org, job, spans)
        selected = selection.select(
            spans, states, job.lookback, self.org.tz, with_lookback=with_lookback, deep=deep
        )
        cycle.select(scope, selected.recent)
        return [known[span] for span in selected.in_order()]

    async def _scope(self, job: Job, scope: Scope, newest: selection.WindowState | None) -> Scope:
        """The scope, decided where it is ``AUTOMATIC``; ``newest`` is the state of the newest due window.

        Where the ledger holds windows of the future, the lookback is read: the API's clock alone shows whether
        they are, and it comes with a response.
        """
        if scope is not Scope.AUTOMATIC:
            return scope
        if newest is None:
            return Scope.OPEN
        if not newest.complete or await self._ledger.has_completed_after(
            stream_of(job.name, job.measure), self._clock.now()
        ):
            return Scope.LOOKBACK
        return Scope.OPEN

    async def _pruned_before(self) -> datetime | None:
        return await current_prune_date(self._database, self.org.name)

    async def _due(self, job: Job) -> list[Span]:
        return due_spans(self.org, job, self._clock.now(), await self._pruned_before())

    async def _without_pruned(self, windows: Sequence[LedgerWindow]) -> list[LedgerWindow]:
        """Delete the windows that were requested before the org's prune date, and return the others."""
        before = await self._pruned_before()
        pruned = [] if before is None else [each.window for each in windows if each.window.span.start < before]
        for kind in {(window.requested, window.measure) for window in pruned}:
            await self._ledger.delete([each for each in pruned if (each.requested, each.measure) == kind])
        return [each for each in windows if each.window not in pruned]

    async def _known(self, job: Job) -> dict[Span, LedgerWindow]:
        return known_windows(job, await self._ledger.windows(stream_of(job.name, job.measure)))

    async def _reopen(self, work: str, delay: timedelta) -> None:
        """Reopen the windows that were completed too early by a wrong clock, as far as the clocks show it."""
        server, now = self.client.server_clock, self._clock.now()
        server_time = now if server.undated else server.now()
        latest = None if server_time is None else max(server_time, now)
        reopened = await self._ledger.reopen(work, delay, latest)
        if reopened:
            self._emit(
                Event.WINDOW_REOPENED,
                org=self.org.name,
                job=job_of(work),
                window_start=reopened[0].start,
                window_end=reopened[-1].end,
                windows=len(reopened),
                reason="completed before their end plus the delay, by a clock that was ahead",
            )

    async def _align(self) -> None:
        """Replace unfinished ad hoc windows that lie off the bucket edges of the org's present time zone."""
        for each in await self._ledger.windows(AD_HOC):
            if each.state == "complete" or is_aligned(self.org, each.window):
                continue
            planned = realigned(self.org, each.window, self._clock.now())
            await self._ledger.delete([each.window])
            if planned.windows:
                await request_windows(self._database, planned.windows, again=False)
                self._report_moved(planned, each.window.span.start, each.window.span.end)

    def _report_refused(self, entry: AdHoc, planned: AdHocWindows, reason: str, *, again: bool) -> None:
        """Report that an ad hoc entry is refused: once, and whenever it is requested again."""
        if not again and self._refused.get(entry.name) == entry.content_hash:
            return
        self._refused[entry.name] = entry.content_hash
        self._emit(
            Event.AD_HOC_REFUSED,
            org=self.org.name,
            entry=entry.name,
            window_start=planned.windows[0].span.start,
            window_end=planned.windows[-1].span.end,
            reason=reason,
        )

    def _report_moved(self, planned: AdHocWindows, requested_from: date, requested_to: date) -> None:
        self._emit(
            Event.SPAN_ADJUSTED,
            org=self.org.name,
            job=None,
            window_start=planned.windows[0].span.start,
            window_end=planned.windows[-1].span.end,
            requested_from=requested_from,
            requested_to=requested_to,
        )

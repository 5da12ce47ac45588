"""Windows into scans: grouped to save requests, split and coarsened where the API rejects a query."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import CancelledError
from collections.abc import Collection, Sequence
from dataclasses import replace

from service.clock import Clock
from service.config import Org
from service.errors import (
    AdmissionClosedError,
    CircuitOpenError,
    CursorExpiredError,
    DatabaseUnavailableError,
    ExtractionError,
    GivenUpError,
    GranularityError,
    HoursOverError,
    InvalidResponseError,
    LeaseLostError,
    NotSettledError,
    PrunedError,
    QueryTooLargeError,
    RateLimitedError,
    TooWideError,
)
from service.extraction.admission import ScanAdmission
from service.extraction.cycle import Cycle, CyclePolicy
from service.extraction.pipeline import Pipeline, check_settled, scan_context
from service.extraction.scan_group import ScanGroup
from service.extraction.size_estimate import expected_size
from service.extraction.splitter import Splitter
from service.genesys import GenesysClient
from service.model import Granularity, Measure, Scan, Span, Window
from service.plan import granularity, grouping
from service.plan.grouping import OrgSettings
from service.plan.narrowing import Cause, cause_of
from service.plan.splitting import in_parts
from service.postgres.merge import Partitions
from service.postgres.windows import Ledger, LedgerWindow
from service.telemetry import Emit, Event

# Errors that one window of a scan may have caused alone.
_SINGLE_WINDOW_ERRORS = (InvalidResponseError, GranularityError, QueryTooLargeError)


class Scanner:
    """Runs the windows of one org as scans.

    Args:
        org: its configuration; ``configure`` replaces it.
        client: sends the queries.
        ledger: holds the state of the windows.
        splitter: decides how wide a query is.
        pipeline: extracts a scan.
        partitions: creates missing partitions.
        clock: the process's clock.
        emit: receives the events.
        gives_up: whether an open breaker or a long ``Retry-After`` ends the run instead of being waited out.
    """

    def __init__(
        self,
        org: Org,
        client: GenesysClient,
        ledger: Ledger,
        splitter: Splitter,
        pipeline: Pipeline,
        partitions: Partitions,
        clock: Clock,
        emit: Emit,
        *,
        gives_up: bool,
    ) -> None:
        self.org = org
        self.admission = ScanAdmission(org.concurrency)
        self._client = client
        self._ledger = ledger
        self._splitter = splitter
        self._pipeline = pipeline
        self._partitions = partitions
        self._clock = clock
        self._emit = emit
        self._gives_up = gives_up

    def configure(self, org: Org) -> None:
        """Apply the org's changed configuration to the scans that start from now on."""
        self.org = org
        self.admission.resize(org.concurrency)

    @property
    def settings(self) -> OrgSettings:
        """The configuration that shapes queries."""
        org = self.org
        return OrgSettings(
            org.name, org.timezone, org.flows, org.page_size, org.concurrency, org.response_entries_max
        )

    async def run(self, windows: Sequence[LedgerWindow], cycle: Cycle) -> None:
        """Group the windows into scans and run them; the cycle's result counts what became of them.

        Raises:
            DatabaseUnavailableError, LeaseLostError, GivenUpError: windows that were not stored stay due.
        """
        isolated = {each.window.span for each in windows if each.isolated}
        waiting = [each.window for each in windows]
        while waiting:
            # One that was refused by itself comes last: it would end the narrowing of the others in this cycle.
            first = next((window for window in waiting if window.span not in isolated), waiting[0])
            alike = [window for window in waiting if _kind(window) == _kind(first)]
            if first.span not in isolated:
                alike = [window for window in alike if window.span not in isolated]
            group = ScanGroup()
            try:
                await group.run(self._start_scans(group, alike, isolated, cycle))
            except GivenUpError as error:
                await self._ledger.note_skipped(waiting, str(error))
                raise
            started = {(window.span, *_kind(window)) for window in alike}
            waiting = [window for window in waiting if (window.span, *_kind(window)) not in started]

    async def _start_scans(
        self, group: ScanGroup, windows: Sequence[Window], isolated: Collection[Span], cycle: Cycle
    ) -> None:
        """Start the scans of windows of one kind: as many as may send, until the entries per bucket are known."""
        rest, timezone, running, is_first = list(windows), self.org.timezone, 0, True
        estimate = cycle.estimate(windows[0].granularity, windows[0].measure)

        async def run(windows: Sequence[Window]) -> None:
            nonlocal running
            try:
                await self._run_group(windows, cycle)
            finally:
                running -= 1
                estimate.changed.set()

        while rest:
            if self.org.timezone != timezone:  # changed by a reload: the windows' edges are no longer bucket edges
                cycle.result.requeued += len(rest)
                return
            estimate.changed.clear()
            slots = self.org.concurrency - running
            expected = await expected_size(
                rest[0],
                estimate,
                self._ledger,
                await self._splitter.policy(rest[0].granularity),
                self.settings,
                cycle.id,
                is_idle=not running,
                is_first=is_first,
            )
            if (expected.is_known or slots > 0) and not (expected.entries is None and running):
                groups = grouping.group_windows(
                    rest,
                    self.settings,
                    entries_per_bucket=expected.entries,
                    delay=cycle.policy.delay,
                    metrics_delay=cycle.policy.metrics_delay,
                    isolated=isolated,
                    probes=expected.probes,
                    is_lower_bound=not expected.is_known,
                )
                scans = groups.scans if expected.is_known or expected.entries is None else groups.scans[:slots]
                for scan in scans:
                    running += 1
                    group.start(run(scan))
                taken = {window.span for scan in scans for window in scan}
                rest, is_first = [window for window in rest if window.span not in taken], False
            if rest:
                await estimate.changed.wait()

    async def _run_all(self, groups: Sequence[Sequence[Window]], cycle: Cycle) -> None:
        """Run groups of adjacent windows side by side."""
        await ScanGroup().run(*(self._run_group(each, cycle) for each in groups))

    def _scan(self, windows: Sequence[Window], cycle: Cycle) -> Scan:
        """A scan of these windows, in queries whose responses are expected to be small enough."""
        policy, step, measure = cycle.policy, windows[0].granularity, windows[0].measure
        queries = grouping.queries(
            Span(windows[0].span.start, windows[-1].span.end),
            step,
            self.settings,
            delay=policy.delay,
            metrics_delay=policy.metrics_delay,
            now=self._clock.now(),
            measure=measure,
            group_by=self.org.group_by(step, measure),
        )
        entries = cycle.estimate(step, measure).entries
        most = None if entries is None else self.settings.most_buckets(entries)
        if most is not None:
            queries = tuple(part for query in queries for part in in_parts(query, most))
        return Scan(tuple(windows), queries, policy.expect_for, policy.delay)

    async def _run_group(self, windows: Sequence[Window], cycle: Cycle) -> None:
        """Run adjacent windows as one scan, or as several where a query may not be so wide."""
        limit: int | None = None
        while windows:
            count = await self._splitter.take(windows, self.org.timezone, cycle.id, limit)
            if count < len(windows) and await self._splitter.is_settled(windows, self.org.timezone, cycle.id):
                pieces = [windows[:count]]
                while windows := windows[len(pieces[-1]) :]:
                    count = await self._splitter.take(windows, self.org.timezone, cycle.id, None)
                    pieces.append(windows[:count])
                await self._run_all(pieces, cycle)
                return
            scan = self._scan(windows[:count], cycle)
            try:
                await self._run_or_split(scan, cycle)
            except TooWideError as error:
                await self._ledger.requeue(scan, str(error))
                limit = self._splitter.width(scan.windows, self.org.timezone) - 1
            else:
                windows, limit = windows[count:], None

    async def _run_or_split(self, scan: Scan, cycle: Cycle) -> None:
        """Run one scan; retry its windows one by one where one of them may be the cause of an error.

        Raises:
            TooWideError: the windows are to be requested in narrower queries.
        """
        try:
            await self._extract(scan, cycle)
        except NotSettledError as error:
            await self._postpone(replace(scan, windows=scan.windows[error.settled :]), error, cycle)
            await self._run_group(scan.windows[: error.settled], cycle)
        except PrunedError as error:
            await self._rerun_after_prune(scan, error, cycle)
        except ExtractionError as error:
            if len(scan.windows) > 1 and isinstance(error, _SINGLE_WINDOW_ERRORS):
                self._emit(Event.SCAN_SPLIT, **scan_context(scan), windows=len(scan.windows), reason=str(error))
                await self._ledger.requeue(scan, str(error), isolate=not isinstance(error, GranularityError))
                for window in scan.windows:
                    await self._run_or_split(self._scan([window], cycle), cycle)
                return
            coarser = self._coarser(scan.windows[0], cycle.policy) if isinstance(error, GranularityError) else None
            if coarser is None:
                await self._fail(scan, error, cycle)
                return
            self.report_adjusted(coarser, str(error))
            await self._ledger.replace(scan.windows[0], coarser)
            await self._run_or_split(self._scan([coarser], cycle), cycle)

    async def _extract(self, scan: Scan, cycle: Cycle) -> None:
        """Extract one scan when it is admitted, and count what became of its windows."""
        result = cycle.result
        while True:
            try:
                async with self.admission.slot(scan, cycle.priority_of(scan)) as release_fetch_slot:
                    if not cycle.may_start_scan():
                        result.requeued += len(scan.windows)
                        return
                    check_settled(scan, self._client)
                    await self._partitions.ensure(scan.span)
                    merged = await self._pipeline.extract(scan, cycle, release_fetch_slot)
            except (CircuitOpenError, RateLimitedError) as error:
                await self._wait_for_breaker(scan, error, cycle)
            except AdmissionClosedError:
                result.requeued += len(scan.windows)
                return
            except HoursOverError:
                result.requeued += len(scan.windows)
                await self._requeue(scan)
                return
            except (DatabaseUnavailableError, LeaseLostError):
                result.requeued += len(scan.windows)
                raise
            except CancelledError:
                result.requeued += len(scan.windows)
                await self._requeue(scan)
                raise
            else:
                result.doubted += len(merged.doubted)
                result.complete += len(scan.windows) - len(merged.doubted)
                return

    async def _wait_for_breaker(
        self, scan: Scan, error: CircuitOpenError | RateLimitedError, cycle: Cycle
    ) -> None:
        """Wait until the breaker lets a request through, unless the run gives up the org.

        Raises:
            GivenUpError: the run gives up the org.
            RateLimitedError: the retries of a 429 are used up.
        """
        if self._gives_up:
            await self._fail(scan, error, cycle)
            raise GivenUpError(str(error)) from error
        if isinstance(error, RateLimitedError):
            raise error
        await self._ledger.requeue(scan, str(error))
        await self.admission.pause(error.retry_after)

    async def _requeue(self, scan: Scan) -> None:
        """Mark a stopped scan's windows as pending; if that fails, the next owner's start does."""
        with contextlib.suppress(DatabaseUnavailableError, TimeoutError):
            async with asyncio.timeout(1):
                await self._ledger.requeue(scan)

    async def _postpone(self, scan: Scan, error: NotSettledError, cycle: Cycle) -> None:
        """Leave windows due that have not settled by the clock that decides."""
        result = cycle.result
        result.postponed += len(scan.windows)
        result.settles_in = min(result.settles_in, error.seconds)
        await self._ledger.requeue(scan, str(error))
        self._emit(Event.WINDOW_POSTPONED, **scan_context(scan), windows=len(scan.windows), reason=str(error))

    async def _rerun_after_prune(self, scan: Scan, error: PrunedError, cycle: Cycle) -> None:
        """Run the windows again that start after a prune date which came while the scan ran.

        A window that contains the prune date is left to the next cycle, which begins it there.
        """
        cycle.result.requeued += sum(window.span.start < error.before < window.span.end for window in scan.windows)
        await self._run_group([window for window in scan.windows if window.span.start >= error.before], cycle)

    async def _fail(self, scan: Scan, error: ExtractionError, cycle: Cycle) -> None:
        cycle.result.failed += len(scan.windows)
        reason = f"{error} ({error.hint})" if error.hint else str(error)
        for window in scan.windows:
            self._emit(
                Event.WINDOW_FAILED,
                org=window.org,
                job=window.job,
                window_start=window.span.start,
                window_end=window.span.end,
                query_hash=self._client.dialect.query_hash(scan.queries[0]),
                reason=reason,
                status=error.status,
                code=error.code,
                context_id=error.context_id,
                correlation_id=error.correlation_id,
            )
        # Requested with others again, it would fail them too, and a scan that outlasts its cursor would again.
        refused = len(scan.windows) == 1 and cause_of(error) is Cause.WIDTH
        isolate = refused or (isinstance(error, CursorExpiredError) and error.after_pages)
        await self._ledger.fail(scan, reason, isolate=isolate)

    def _coarser(self, window: Window, policy: CyclePolicy) -> Window | None:
        """The window one step coarser; None where it was coarsened before or the policy allows no coarser one."""
        step = granularity.coarser(window.granularity)
        order = list(Granularity)
        if window.coarsened or step is None or order.index(step) > order.index(policy.coarsest):
            return None
        if window.job is not None:
            return replace(window, granularity=step, coarsened=True)
        adjusted = granularity.adjust(
            window.span, step.value, self.org.tz, self._clock.now() - policy.delay, coarsest=step
        )
        return adjusted and replace(window, span=adjusted.span, granularity=step, coarsened=True)

    def report_adjusted(self, window: Window, reason: str) -> None:
        """Report that a window is queried at another granularity than requested, and why."""
        self._emit(
            Event.GRANULARITY_ADJUSTED,
            org=window.org,
            job=window.job,
            window_start=window.span.start,
            window_end=window.span.end,
            requested=window.requested,
            granularity=window.granularity.value,
            reason=reason,
        )


def _kind(window: Window) -> tuple[str, str, Granularity, Measure]:
    return window.stream, window.requested, window.granularity, window.measure

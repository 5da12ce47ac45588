"""Windows into scans: joined where that saves requests, apart where one of them is at fault."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus

from service.clock import Clock
from service.config import Org
from service.errors import (
    CircuitOpenError,
    DatabaseUnavailableError,
    ExtractionError,
    GranularityError,
    HoursOverError,
    LeaseLostError,
    NotSettledError,
    PageError,
    QueryTimeoutError,
    QueryTooLargeError,
    RateLimitedError,
)
from service.extraction.admission import AdmissionClosedError, ScanAdmission
from service.extraction.cycle import CyclePolicy, CycleResult
from service.extraction.pipeline import Pipeline, about
from service.genesys import GenesysClient
from service.model import Granularity, Scan, Span, Window
from service.plan import granularity, grouping
from service.plan.grouping import OrgSettings
from service.postgres.merge import Partitions
from service.postgres.windows import Ledger, LedgerWindow

Emit = Callable[..., None]

# Who begins first where scans wait: today's figures, then what was asked for by hand, then the backlog.
RECENT, BY_HAND, BACKLOG = range(3)

# What may be the fault of one of the windows that were asked together.
_OF_ONE_WINDOW = (PageError, GranularityError, QueryTooLargeError)

_BUCKET_SECONDS = {Granularity.HOURLY: 3600.0, Granularity.DAILY: 86400.0, Granularity.MONTHLY: 30 * 86400.0}


class GivenUpError(Exception):
    """The org is left alone for the rest of this run."""


# What ends a cycle and is no fault of the program's: another error is rather told.
_KNOWN = (DatabaseUnavailableError, LeaseLostError, GivenUpError)


class Scanner:
    """Runs windows of one org as scans, so many at once as its gate lets in.

    Args:
        org: its configuration; replaced as a whole at a reload.
        client: asks its API.
        ledger: where what becomes of them is noted.
        pipeline: brings one scan in.
        partitions: has them made ahead.
        clock: the time.
        emit: told every event.
        gives_up: an open breaker or a long Retry-After ends the run instead of being waited out.
    """

    def __init__(
        self,
        org: Org,
        client: GenesysClient,
        ledger: Ledger,
        pipeline: Pipeline,
        partitions: Partitions,
        clock: Clock,
        emit: Emit,
        *,
        gives_up: bool,
    ) -> None:
        self.org = org
        self.gate = ScanAdmission(org.concurrency)
        self._client = client
        self._ledger = ledger
        self._pipeline = pipeline
        self._partitions = partitions
        self._clock = clock
        self._emit = emit
        self._gives_up = gives_up

    def configure(self, org: Org) -> None:
        """Take over the org's changed configuration for the scans that begin from now on."""
        self.org = org
        self.gate.widen(org.concurrency)

    @property
    def settings(self) -> OrgSettings:
        """What of the configuration shapes queries."""
        org = self.org
        return OrgSettings(org.name, org.timezone, org.flows, org.page_size, org.concurrency)

    async def run(
        self,
        found: Sequence[LedgerWindow],
        terms: CyclePolicy,
        cycle: str,
        tally: CycleResult,
        priority: Callable[[Window], int],
    ) -> None:
        """Join the windows into scans and run these, until there is none left that may begin."""
        alone = [each.window.span for each in found if each.ask_alone]
        waiting, timezone = [each.window for each in found], self.org.timezone
        while waiting:
            if self.org.timezone != timezone:  # by a reload: their edges are none any more
                tally.put_back += len(waiting)
                return
            first = waiting[0]
            group = [w for w in waiting if (w.work, w.requested, w.granularity) == _kind(first)]
            rest = [w for w in waiting if (w.work, w.requested, w.granularity) != _kind(first)]
            entries = await self._ledger.entries_per_bucket(
                first.work, first.granularity, _BUCKET_SECONDS[first.granularity]
            )
            joined = grouping.group_windows(
                group,
                self.settings,
                entries_per_bucket=max(entries, 1.0) if entries is not None else len(self.org.flows) or None,
                delay=terms.delay,
                metrics_delay=terms.metrics_delay,
                alone=alone,
            )
            work = [
                partial(self._run_or_split, self._scan(each, terms), terms, cycle, tally, min(map(priority, each)))
                for each in joined.scans
            ]
            try:
                await self._run_all(work)
            except GivenUpError as error:
                await self._ledger.note_skipped(waiting, str(error))
                raise
            waiting = joined.later + rest

    async def _run_all(self, work: Sequence[Callable[[], Coroutine[None, None, None]]]) -> None:
        """Run all of them; the first that cannot go on ends the others.

        None raises into the group: beside an error it forgets that it was cancelled, before Python 3.13 at least,
        and an org that was lost would go on being worked.
        """
        errors: list[Exception] = []

        async def attempt(each: Callable[[], Coroutine[None, None, None]]) -> None:
            try:
                await each()
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
                for task in tasks:
                    if task is not asyncio.current_task():
                        task.cancel()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(each)) for each in work]
        if errors:
            raise next((error for error in errors if not isinstance(error, _KNOWN)), errors[0])

    def _scan(self, joined: Sequence[Window], terms: CyclePolicy) -> Scan:
        span = Span(joined[0].span.start, joined[-1].span.end)
        asked = grouping.queries(
            span,
            joined[0].granularity,
            self.settings,
            delay=terms.delay,
            metrics_delay=terms.metrics_delay,
            now=self._clock.now(),
        )
        return Scan(tuple(joined), asked, terms.expect_for, terms.delay)

    async def _run_or_split(
        self, scan: Scan, terms: CyclePolicy, cycle: str, tally: CycleResult, priority: int
    ) -> None:
        """Run one scan; what fails because windows were asked together is asked one by one."""
        try:
            await self._extract(scan, terms, cycle, tally, priority)
        except NotSettledError as error:
            await self._postpone(replace(scan, windows=scan.windows[error.settled :]), error, tally)
            if error.settled:
                await self._run_or_split(
                    self._scan(scan.windows[: error.settled], terms), terms, cycle, tally, priority
                )
        except ExtractionError as error:
            bad_hour = error.status == HTTPStatus.GATEWAY_TIMEOUT  # the server's, and every window's
            if len(scan.windows) > 1 and isinstance(error, _OF_ONE_WINDOW) and not bad_hour:
                self._emit("scan_split", **about(scan), windows=len(scan.windows), reason=str(error))
                await self._ledger.interrupt(scan, str(error), ask_alone=not isinstance(error, GranularityError))
                for window in scan.windows:
                    await self._run_or_split(self._scan([window], terms), terms, cycle, tally, priority)
                return
            coarser = self._coarser(scan.windows[0], terms) if isinstance(error, GranularityError) else None
            if coarser is None:
                await self._failed(scan, error, tally)
                return
            self.tell_adjusted(coarser, str(error))
            await self._ledger.replace(scan.windows[0], coarser)
            await self._run_or_split(self._scan([coarser], terms), terms, cycle, tally, priority)

    def _check_query_allowed(self, scan: Scan, terms: CyclePolicy) -> None:
        """Called before each query of a scan, which may take long, and be held back by a 429.

        Raises:
            HoursOverError: the off-peak hours are over.
            NotSettledError: a window has not settled by the API's clock, as its last response showed it.
        """
        if not terms.in_hours(self._clock.now()):
            raise HoursOverError("the off-peak hours are over")
        self._check_settled(scan)

    def _check_settled(self, scan: Scan) -> None:
        server_time = self._client.server_clock.now()
        if server_time is not None:
            scan.check_settled(server_time)

    async def _postpone(self, scan: Scan, error: NotSettledError, tally: CycleResult) -> None:
        """Leave windows due that the clock which decides does not let be stored yet."""
        tally.postponed += len(scan.windows)
        tally.settles_in = min(tally.settles_in, error.seconds)
        await self._ledger.interrupt(scan, str(error))
        self._emit("window_postponed", **about(scan), windows=len(scan.windows), reason=str(error))

    async def _extract(
        self, scan: Scan, terms: CyclePolicy, cycle: str, tally: CycleResult, priority: int
    ) -> None:
        while True:
            try:
                async with self.gate.enter(scan, priority) as release_fetch_slot:
                    if not terms.may_begin(self._clock.now()):
                        tally.put_back += len(scan.windows)
                        return
                    self._check_settled(scan)
                    await self._partitions.ensure(scan.span)
                    merged = await self._pipeline.extract(
                        scan, cycle, partial(self._check_query_allowed, scan, terms), release_fetch_slot
                    )
            except (CircuitOpenError, RateLimitedError) as error:
                if self._gives_up:
                    await self._failed(scan, error, tally)
                    raise GivenUpError(str(error)) from error
                if isinstance(error, RateLimitedError):
                    raise
                await self._ledger.interrupt(scan, str(error))
                await self.gate.pause(error.retry_after)
            except (
                AdmissionClosedError,
                HoursOverError,
                DatabaseUnavailableError,
                LeaseLostError,
                CancelledError,
            ) as error:
                tally.put_back += len(scan.windows)
                if isinstance(error, (HoursOverError, CancelledError)):
                    await self._put_back(scan)
                if isinstance(error, (AdmissionClosedError, HoursOverError)):
                    return
                raise
            else:
                tally.doubted += len(merged.doubted)
                tally.complete += len(scan.windows) - len(merged.doubted)
                return

    async def _put_back(self, scan: Scan) -> None:
        """Note that a scan was stopped; where that cannot be done in time, the next owner's start does it."""
        with contextlib.suppress(DatabaseUnavailableError, TimeoutError):
            async with asyncio.timeout(1):
                await self._ledger.interrupt(scan)

    async def _failed(self, scan: Scan, error: ExtractionError, tally: CycleResult) -> None:
        tally.failed += len(scan.windows)
        reason = f"{error} ({error.hint})" if error.hint else str(error)
        for window in scan.windows:
            self._emit(
                "window_failed",
                org=window.org,
                job=window.job,
                window_start=window.span.start,
                window_end=window.span.end,
                query_hash=self._client.dialect.query_hash(scan.queries[0]),
                reason=reason,
                status=error.status,
                code=error.code,
                context_id=error.context_id,
            )
        too_slow = isinstance(error, QueryTimeoutError) and len(scan.windows) > 1
        await self._ledger.fail(scan, reason, ask_alone=too_slow)

    def _coarser(self, window: Window, terms: CyclePolicy) -> Window | None:
        """The window one step coarser, where that is allowed: never twice, and a job's never past itself."""
        step = granularity.coarser(window.granularity)
        order = list(Granularity)
        if window.coarsened or step is None or order.index(step) > order.index(terms.coarsest):
            return None
        if window.job is not None:
            return replace(window, granularity=step, coarsened=True)
        adjusted = granularity.adjust(
            window.span, step.value, self.org.tz, self._clock.now() - terms.delay, coarsest=step
        )
        return adjusted and replace(window, span=adjusted.span, granularity=step, coarsened=True)

    def tell_adjusted(self, window: Window, reason: str) -> None:
        """Tell that a window is asked for at another granularity than was asked for, and why."""
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


def _kind(window: Window) -> tuple[str, str, Granularity]:
    return window.work, window.requested, window.granularity

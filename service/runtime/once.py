"""``run --once``: extract every window that is due now, for every org, then exit."""

from __future__ import annotations

import asyncio
import contextlib

from service.clock import Clock
from service.config import Config, Org
from service.errors import DatabaseUnavailableError, GivenUpError, LeaseLostError
from service.extraction import EVERYTHING, Cycle, CyclePolicy, CycleResult, OrgWorker
from service.postgres.lease import Lease
from service.runtime.database import DATABASE_RETRY_AFTER, ensure_migrated, open_database
from service.runtime.process import GRACE, Process
from service.runtime.signals import Signals
from service.runtime.suggestions import SuggestionLog
from service.telemetry import Emit, Event

LEASE_TIMEOUT = 30.0
"""Seconds to wait for an org that another process holds."""
DATABASE_TIMEOUT = 30.0
"""Seconds to wait for a database that is unavailable."""


async def run_once(config: Config, emit: Emit) -> int:
    """Extract what is due for all orgs, side by side; the exit code. SIGTERM ends it gracefully, with 0.

    Raises:
        DatabaseUnavailableError: the database was unavailable at the start, and remained so.
    """
    with Signals().installed() as signals:
        running = asyncio.create_task(_run(config, emit, signals))
        stopping = asyncio.create_task(signals.stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await asyncio.wait({running}, timeout=GRACE)
                running.cancel()
                await asyncio.wait({running})
                return 0
            return await running
        finally:
            stopping.cancel()


async def _run(config: Config, emit: Emit, signals: Signals) -> int:
    async with open_database(config.database, long_lived=True, timeout=DATABASE_TIMEOUT) as dsn:
        await ensure_migrated(dsn, emit, timeout=DATABASE_TIMEOUT)
        async with Process(dsn, config.database.pool_size, emit).running() as runtime:
            done = await asyncio.gather(
                *(_run_org(runtime, config, org, emit, signals) for org in config.orgs.values())
            )
    return 0 if all(done) else 1


async def _run_org(runtime: Process, config: Config, org: Org, emit: Emit, signals: Signals) -> bool:
    """Extract an org's due windows; whether all of them are stored."""
    interrupted_at: float | None = None
    try:
        while True:
            try:
                async with asyncio.timeout(LEASE_TIMEOUT):
                    lease = await runtime.lease(org.name)
            except TimeoutError:
                if runtime.lease_error is not None:
                    emit(Event.ORG_GIVEN_UP, org=org.name, reason=runtime.lease_error)
                    return False
                reason = "another process holds this org; its windows are left to that process"
                emit(Event.ORG_LOCKED_ELSEWHERE, org=org.name, reason=reason)
                return False
            try:
                return await _hold(runtime, config, org, lease, signals)
            except (DatabaseUnavailableError, LeaseLostError) as error:
                interrupted_at = interrupted_at or runtime.clock.monotonic()
                if runtime.clock.monotonic() - interrupted_at >= DATABASE_TIMEOUT:
                    emit(Event.ORG_GIVEN_UP, org=org.name, reason=str(error))
                    return False
                emit(Event.ORG_INTERRUPTED, org=org.name, reason=str(error))
                await asyncio.sleep(DATABASE_RETRY_AFTER)
    finally:
        runtime.release(org.name)


async def _hold(runtime: Process, config: Config, org: Org, lease: Lease, signals: Signals) -> bool:
    async with runtime.worker(org, lease, gives_up=True) as worker:
        closing = asyncio.create_task(_close_on_stop(signals, worker))
        try:
            unfinished = await run_everything(worker, config, runtime.clock, again=False)
        except GivenUpError:
            return False  # reported where it happened
        else:
            if not signals.stop.is_set():
                await _log_suggestions(runtime, org)
            return unfinished == 0
        finally:
            closing.cancel()


async def _log_suggestions(runtime: Process, org: Org) -> None:
    """Log new suggested aliases; what was extracted does not depend on it."""
    with contextlib.suppress(DatabaseUnavailableError):
        await SuggestionLog(runtime.database, runtime.clock, runtime.emit).search(org)


async def _close_on_stop(signals: Signals, worker: OrgWorker) -> None:
    await signals.stop.wait()
    worker.close()


async def run_everything(worker: OrgWorker, config: Config, clock: Clock, *, again: bool) -> int:
    """Extract an org's due windows and its ad hoc entries.

    Args:
        worker: the org's worker.
        config: the configuration, with the jobs and the entries.
        clock: the process's clock.
        again: whether entries that were extracted before are extracted again.

    Returns:
        the number of windows that were due and are not complete.

    Raises:
        DatabaseUnavailableError, LeaseLostError, GivenUpError: windows that were not stored stay due.
    """
    org = worker.org
    for entry in config.ad_hoc.values():
        if entry.org == org.name:
            await worker.enqueue(entry, again=again)
    cycles = [
        worker.run_cycle(job, Cycle(CyclePolicy.of(job), EVERYTHING, clock))
        for job in config.jobs_of(org).values()
    ]
    results = await asyncio.gather(*cycles, worker.run_ad_hoc(), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda each: isinstance(each, GivenUpError)):  # the least expected one first
        raise error
    return sum(result.unfinished for result in results if isinstance(result, CycleResult))

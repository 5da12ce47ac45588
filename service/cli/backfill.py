"""``flow-outcomes backfill``: extracts a span, here or in the daemon that holds the org."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field

from service.cli import ExitCode, configuration
from service.clock import SystemClock
from service.config import AdHoc, Config, Org, values
from service.errors import ConfigError, DatabaseUnavailableError, Fault, GivenUpError, LeaseLostError
from service.extraction import ad_hoc_windows, prune_problem
from service.model import Measure, Window
from service.postgres.lease import Lease
from service.postgres.probe import open_connection
from service.postgres.prune_dates import prune_date
from service.postgres.windows import Ledger, request_progress, request_windows
from service.runtime import DATABASE_TIMEOUT, Process, ensure_migrated, open_database
from service.telemetry import Emit, Reporter, counted, printable
from service.telemetry.progress_bar import ProgressBar

LEASE_TIMEOUT = 3.0
"""Seconds in which a lease that no process holds is acquired."""
POLL_INTERVAL = 1.0  # seconds


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments, traced=True)
    org, entry = _span(config, arguments)
    reporter = Reporter()
    with ProgressBar(sys.stderr, shown=not arguments.no_progress) as bar:
        reporter.subscribe(bar.on_event)
        result = asyncio.run(_backfill(config, org, entry, reporter.emit, bar))
    for error in result.errors:
        sys.stderr.write(f"flow-outcomes: {printable(error)}\n")
    if arguments.json:
        print(json.dumps({"stored": result.stored, "windows": result.windows, "errors": result.errors}, indent=2))
    elif result.windows:
        print(f"stored {result.stored} of {counted(result.windows, 'window')}")
    return ExitCode.DONE if result.done else ExitCode.INCOMPLETE


@dataclass(frozen=True)
class _Result:
    """What a backfill did.

    Attributes:
        stored: windows that are stored.
        windows: all windows of the span.
        done: whether everything is done.
        errors: why not.
    """

    stored: int
    windows: int
    done: bool
    errors: list[str] = field(default_factory=list)


def _span(config: Config, arguments: argparse.Namespace) -> tuple[Org, AdHoc]:
    """The org and the span that the arguments name.

    Raises:
        ConfigError: everything that is wrong with the arguments.
    """
    faults = []
    org = config.orgs.get(arguments.org)
    if org is None:
        faults.append(configuration.unknown_org(config, arguments.org))
    days = []
    for key, text in (("--from", arguments.start), ("--to", arguments.end)):
        try:
            days.append(values.day(text))
        except ValueError as error:
            faults.append(Fault(key, f"{text!r} {error}"))
    match days:
        case [first, last] if first >= last:
            faults.append(Fault("--to", f"must be later than --from {first}"))
    if org is not None and arguments.measure not in (None, Measure.OUTCOMES) and org.api != "flow-aggregates":
        faults.append(Fault("--measure", f"needs api: flow-aggregates, which {org.name} does not have"))
    if org is None or faults:
        raise ConfigError(faults)
    start, end = (day.isoformat() for day in days)
    entry = {
        "org": org.name,
        "from": start,
        "to": end,
        "granularity": arguments.granularity,
        "measure": arguments.measure,
    }
    return org, AdHoc.model_validate(entry)


async def _backfill(config: Config, org: Org, entry: AdHoc, emit: Emit, bar: ProgressBar) -> _Result:
    async with open_database(config.database, long_lived=True, timeout=DATABASE_TIMEOUT) as dsn:
        await ensure_migrated(dsn, emit, timeout=DATABASE_TIMEOUT)
        await _check_not_pruned(dsn, org, entry)
        async with Process(dsn, config.database.pool_size, emit).running() as runtime:
            found = ad_hoc_windows(org, entry, runtime.clock.now())
            if not found.windows:
                reason = (
                    f"nothing to extract: no bucket from {entry.start} to {entry.end} has settled;"
                    " a bucket settles an hour after its end"
                )
                return _Result(0, 0, done=False, errors=[reason])
            acquiring = asyncio.create_task(runtime.lease(org.name))
            await asyncio.wait({acquiring}, timeout=LEASE_TIMEOUT)
            if not acquiring.done():
                result = await _hand_over(runtime, org, list(found.windows), bar, acquiring)
                if result is not None:
                    return result
            return await _extract_here(runtime, org, entry, acquiring.result())


async def _check_not_pruned(dsn: str, org: Org, entry: AdHoc) -> None:
    """Check that the span does not start before the org's prune date.

    Raises:
        ConfigError: it does.
    """
    async with open_connection(dsn, "flow-outcomes backfill", timeout=DATABASE_TIMEOUT) as connection:
        pruned_before = await prune_date(connection, org.name)
    if problem := prune_problem(org, ad_hoc_windows(org, entry, SystemClock().now()), pruned_before):
        raise ConfigError([Fault("--from", problem)])


async def _extract_here(runtime: Process, org: Org, entry: AdHoc, lease: Lease) -> _Result:
    try:
        async with runtime.worker(org, lease, gives_up=True) as worker:
            windows = await worker.enqueue(entry, again=True)
            if not windows:  # pruned a moment ago: the log has the reason
                return _Result(0, 0, done=False)
            result = await worker.run_ad_hoc(only=windows)
            stored = (await request_progress(runtime.database, windows)).complete
    except (DatabaseUnavailableError, LeaseLostError, GivenUpError) as error:
        error_text = f"{error}; run the command again to extract the remaining windows"
        return _Result(0, 0, done=False, errors=[error_text])
    return _Result(stored, len(windows), done=result.unfinished == 0)


async def _hand_over(
    runtime: Process, org: Org, windows: list[Window], bar: ProgressBar, acquiring: asyncio.Task[Lease]
) -> _Result | None:
    """Hand the windows to the process that holds the org, and follow them.

    Returns:
        the result, or None once this process holds the org because the other one has ended.
    """
    settled = await Ledger(runtime.database, org.name, epoch=-1).all_settled(windows, org.flows)
    await request_windows(runtime.database, windows, again=settled)
    bar.print(f"{org.name} is held by another process, which now extracts the span")
    while not acquiring.done():
        with contextlib.suppress(DatabaseUnavailableError):
            now = await request_progress(runtime.database, windows)
            bar.set_progress(now.complete, len(windows), now.pages)
            if now.finished:
                acquiring.cancel()
                runtime.release(org.name)
                return _Result(now.complete, len(windows), done=now.failed == 0, errors=now.errors)
        await asyncio.wait({acquiring}, timeout=POLL_INTERVAL)
    return None

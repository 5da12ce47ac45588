"""``flow-outcomes trigger``: runs what is due now, here or in the process that holds the org."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

from service.cli import ExitCode, configuration
from service.config import Config, Org
from service.errors import ConfigError, DatabaseUnavailableError, GivenUpError, LeaseLostError
from service.postgres.lease import owner_requests
from service.postgres.lease.owner_requests import Kind
from service.runtime import DATABASE_TIMEOUT, Process, ensure_migrated, open_database, run_everything
from service.telemetry import Emit, Reporter, counted, printable
from service.telemetry.progress_bar import ProgressBar

LEASE_TIMEOUT = 3.0
"""Seconds in which a lease that no process holds is acquired."""
POLL_INTERVAL = 1.0  # seconds


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments, traced=True)
    if arguments.org is not None and arguments.org not in config.orgs:
        raise ConfigError([configuration.unknown_org(config, arguments.org)])
    orgs = [config.orgs[arguments.org]] if arguments.org else list(config.orgs.values())
    reporter = Reporter()
    with ProgressBar(sys.stderr, shown=not arguments.no_progress) as bar:
        reporter.subscribe(bar.on_event)
        results = asyncio.run(_trigger(config, orgs, reporter.emit, bar))
    if arguments.json:
        document = {result.org: {"unfinished": result.unfinished, "error": result.error} for result in results}
        print(json.dumps({"orgs": document}, indent=2))
    else:
        for result in results:
            _print_result(result)
    return ExitCode.DONE if all(result.unfinished == 0 for result in results) else ExitCode.INCOMPLETE


class _Result(NamedTuple):
    """An org's run.

    Attributes:
        org: its name.
        unfinished: windows that were due and are not complete; None where the run was interrupted.
        error: why it was interrupted.
    """

    org: str
    unfinished: int | None
    error: str | None = None


async def _trigger(config: Config, orgs: list[Org], emit: Emit, bar: ProgressBar) -> list[_Result]:
    """Run what is due in each org, side by side."""
    async with open_database(config.database, long_lived=True, timeout=DATABASE_TIMEOUT) as dsn:
        await ensure_migrated(dsn, emit, timeout=DATABASE_TIMEOUT)
        async with Process(dsn, config.database.pool_size, emit).running() as runtime:
            followed = _Followed(bar)
            return await asyncio.gather(*(_run_org(runtime, config, org, followed) for org in orgs))


async def _run_org(runtime: Process, config: Config, org: Org, followed: _Followed) -> _Result:
    acquiring = asyncio.create_task(runtime.lease(org.name))
    try:
        await asyncio.wait({acquiring}, timeout=LEASE_TIMEOUT)
        if not acquiring.done():
            unfinished = await _follow(runtime, org, followed, acquiring)
            if unfinished is not None:
                return _Result(org.name, unfinished)
        async with runtime.worker(org, acquiring.result(), gives_up=True) as worker:
            unfinished = await run_everything(worker, config, runtime.clock, again=True)
    except (DatabaseUnavailableError, LeaseLostError, GivenUpError) as error:
        return _Result(org.name, None, str(error))
    finally:
        acquiring.cancel()
        runtime.release(org.name)
    return _Result(org.name, unfinished)


@dataclass
class _Followed:
    """The progress of the orgs that other processes work.

    Attributes:
        bar: where their sum is shown.
        due: windows by org that are not complete now.
        most: the most of them so far.
    """

    bar: ProgressBar
    due: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    def show(self, org: str, due: int) -> None:
        """Show an org's present number of windows that are not complete."""
        self.due[org] = due
        self.most[org] = max(due, self.most.get(org, 0))
        total = sum(self.most.values())
        self.bar.set_progress(total - sum(self.due.values()), total)


async def _follow(runtime: Process, org: Org, followed: _Followed, acquiring: asyncio.Task[object]) -> int | None:
    """Request a run of the process that holds the org, and follow it.

    Returns:
        the number of windows that are not complete, or None once this process holds the org because the other one
        has ended.
    """
    database = runtime.database
    run = (await owner_requests.request(database, Kind.RUN, [org.name]))[0]
    followed.bar.print(f"{org.name} is held by another process, which now runs what is due")
    while not acquiring.done():
        with contextlib.suppress(DatabaseUnavailableError):
            answer = await owner_requests.answer(database, run)
            followed.show(org.name, await owner_requests.windows_due(database, org.name))
            if answer.finished >= run.number:
                return answer.unfinished
        await asyncio.wait({acquiring}, timeout=POLL_INTERVAL)
    return None


def _print_result(result: _Result) -> None:
    if result.error is not None:
        print(printable(f"{result.org}: {result.error}; run the command again to continue"))
    elif result.unfinished:
        windows = counted(result.unfinished, "due window")
        print(f"{result.org}: {windows} not complete; see 'flow-outcomes status'")
    else:
        print(f"{result.org}: everything due is complete")

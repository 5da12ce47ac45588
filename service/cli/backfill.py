"""``flow-outcomes backfill``: a span by hand, here or by the daemon that holds the org."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from service.cli import DONE, UNDONE
from service.cli.arguments import configured, declare
from service.config import AdHoc, Config, Org, values
from service.errors import ConfigError, DatabaseUnavailableError, Fault, GivenUpError, LeaseLostError
from service.extraction import ad_hoc_windows
from service.model import Granularity, Window
from service.postgres.lease import Lease
from service.postgres.windows import Ledger, request_progress, request_windows
from service.runtime import DATABASE_TIMEOUT, Process, ensure_migrated, open_database
from service.telemetry import Emit, Reporter
from service.telemetry.progress_bar import ProgressBar

TAKE_WITHIN = 3.0  # seconds in which an org that nobody holds is ours
POLL = 1.0


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands,
        "backfill",
        run,
        "extract a span, here or by the daemon that holds the org",
        example="flow-outcomes backfill --config flow-outcomes.yaml --org acme --from 2024-01-01 --to 2024-04-01",
    )
    command.add_argument("--org", required=True, help="the org's name")
    command.add_argument("--from", required=True, dest="start", metavar="DATE", help="first day")
    command.add_argument("--to", required=True, dest="end", metavar="DATE", help="the day after the last")
    command.add_argument(
        "--granularity", default="auto", choices=["auto", *(step.value for step in Granularity)], help="auto"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    config = configured(arguments)
    org, entry = _asked(config, arguments)
    with ProgressBar(sys.stderr) as bar:
        return asyncio.run(_backfill(config, org, entry, bar.watch(Reporter().emit), bar))


def _asked(config: Config, arguments: argparse.Namespace) -> tuple[Org, AdHoc]:
    """The org and the span that the arguments name.

    Raises:
        ConfigError: all that is wrong with them.
    """
    faults = []
    org = config.orgs.get(arguments.org)
    if org is None:
        faults.append(Fault("--org", f"no org {arguments.org!r}; there are {', '.join(config.orgs)}"))
    days = []
    for key, text in (("--from", arguments.start), ("--to", arguments.end)):
        try:
            days.append(values.day(text))
        except ValueError as error:
            faults.append(Fault(key, f"{text!r} {error}"))
    if len(days) == 2 and days[0] >= days[1]:  # noqa: PLR2004 - both
        faults.append(Fault("--to", f"must be later than --from {days[0]}"))
    if org is None or faults:
        raise ConfigError(faults)
    start, end = (day.isoformat() for day in days)
    entry = {"org": org.name, "from": start, "to": end, "granularity": arguments.granularity}
    return org, AdHoc.model_validate(entry)


async def _backfill(config: Config, org: Org, entry: AdHoc, emit: Emit, bar: ProgressBar) -> int:
    async with open_database(config.database, long_lived=True, timeout=DATABASE_TIMEOUT) as dsn:
        await ensure_migrated(dsn, emit, timeout=DATABASE_TIMEOUT)
        async with Process(dsn, config.database.pool_size, emit).running() as runtime:
            found = ad_hoc_windows(org, entry, runtime.clock.now())
            if not found.windows:
                print(f"nothing of {entry.start} to {entry.end} has settled yet: a bucket rests for an hour")
                return UNDONE
            taking = asyncio.create_task(runtime.lease(org.name))
            await asyncio.wait({taking}, timeout=TAKE_WITHIN)
            if not taking.done():
                over = await _handed_over(runtime, org, list(found.windows), bar, taking)
                if over is not None:
                    return over
            return await _here(runtime, org, entry, taking.result())


async def _here(runtime: Process, org: Org, entry: AdHoc, lease: Lease) -> int:
    """Extract it in this process."""
    try:
        async with runtime.worker(org, lease, gives_up=True) as worker:
            windows = await worker.enqueue(entry, again=True)
            tally = await worker.run_ad_hoc(only=windows)
            stored = (await request_progress(runtime.database, windows)).complete
    except (DatabaseUnavailableError, LeaseLostError, GivenUpError) as error:
        sys.stderr.write(f"flow-outcomes: {error}; what is not stored yet goes on when this is run again\n")
        return UNDONE
    print(f"{stored} of {len(windows)} windows stored")
    return DONE if tally.unfinished == 0 else UNDONE


async def _handed_over(
    runtime: Process, org: Org, windows: list[Window], bar: ProgressBar, taking: asyncio.Task[Lease]
) -> int | None:
    """Ask the process that holds the org, and follow it; None once the org is ours: that one has ended."""
    settled = await Ledger(runtime.database, org.name, epoch=-1).all_settled(windows, org.flows)
    await request_windows(runtime.database, windows, again=settled)
    bar.say(f"{org.name} is worked by another process; it was handed the span")
    while not taking.done():
        with contextlib.suppress(DatabaseUnavailableError):
            now = await request_progress(runtime.database, windows)
            bar.at(now.complete, len(windows))
            if now.finished:
                taking.cancel()
                runtime.release(org.name)
                for error in now.errors:
                    sys.stderr.write(f"flow-outcomes: {error}\n")
                print(f"{now.complete} of {len(windows)} windows stored")
                return DONE if now.failed == 0 else UNDONE
        await asyncio.wait({taking}, timeout=POLL)
    return None

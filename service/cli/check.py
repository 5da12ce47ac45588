"""``flow-outcomes check``: is everything set up, and if not, how to mend it."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable

from service.cli.arguments import configured, declare
from service.clock import SystemClock
from service.config import Config, Org
from service.errors import ConfigError, DatabaseUnavailableError, SchemaError
from service.postgres.probe import Facts
from service.runtime import Process, open_database, preflight
from service.runtime.preflight import Finding, Steps
from service.telemetry import printable

AT_ONCE = 16  # orgs that are asked at the same time
POOL_SIZE = 4
_NOT_ASKED = Finding("orgs", False, "not asked: that goes under an org's lease, which needs the database")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    declare(
        commands,
        "check",
        run,
        "is everything set up, and if not, how to mend it",
        example="flow-outcomes check --config /etc/flow-outcomes.yaml",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    config = configured(arguments)
    good = _show([Finding("configuration", True, f"{len(config.orgs)} orgs, {len(config.jobs)} jobs")])
    return 0 if asyncio.run(_check(config)) and good else 1


async def _check(config: Config) -> bool:
    """Whether all is as it has to be."""
    try:
        async with open_database(config.database) as dsn:
            found = await preflight.look(dsn)
            good = _show(preflight.of_database(found))
            return await _orgs(config, dsn, found) and good
    except (DatabaseUnavailableError, SchemaError) as error:
        mend = "look at database.dsn, and that PostgreSQL runs there and lets this role in"
        return _show([Finding("database", False, str(error), mend), _NOT_ASKED])
    except ConfigError as error:
        return _show(Finding("database", False, f"{fault.key}: {fault.message}") for fault in error.faults)


async def _orgs(config: Config, dsn: str, found: Facts) -> bool:
    """Whether every org could be asked, or is worked by another process; told in their order."""
    steps, clock = Steps(), SystemClock()
    if (
        found.unsupported
        or not found.writable
        or found.missing_privileges
        or (found.schema_exists and found.pending)
    ):
        return _show([_NOT_ASKED])
    if not found.schema_exists:
        return await _each(config, lambda org: preflight.ask_alone(org, clock, steps))
    async with Process(dsn, POOL_SIZE, steps.emit).running() as runtime:
        return await _each(config, lambda org: preflight.ask(runtime, org, steps))


async def _each(config: Config, ask: Callable[[Org], Awaitable[list[Finding]]]) -> bool:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(org: Org) -> list[Finding]:
        async with turn:
            return await ask(org)

    asked = [asyncio.create_task(one(org)) for org in config.orgs.values()]
    return all([_show(await each) for each in asked])


def _show(findings: Iterable[Finding]) -> bool:
    """Print a line each; whether all of them are good."""
    good = True
    for each in findings:
        good = good and each.good
        mend = f" -> {each.mend}" if each.mend else ""
        print(printable(f"{'ok  ' if each.good else 'FAIL'} {each.about}: {each.said}{mend}"), flush=True)
    return good

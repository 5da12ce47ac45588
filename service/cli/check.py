"""``flow-outcomes check``: checks the setup and reports how to fix what is wrong."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Iterable

from service.cli import ExitCode, configuration
from service.clock import SystemClock
from service.config import Config, Job, Org
from service.errors import ConfigError, DatabaseUnavailableError, SchemaError
from service.postgres.probe import Facts
from service.runtime import Process, open_database, preflight
from service.runtime.figure_check import figure_findings
from service.runtime.preflight import Finding, TokenRecorder
from service.telemetry import counted, printable

CONCURRENT_ORGS = 16
POOL_SIZE = 4
_ORGS_NOT_CHECKED = Finding(
    "orgs",
    False,
    "not checked: an org's queries need its lease, which is in the database",
    "fix the database first",
)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    detail = f"{counted(len(config.orgs), 'org')}, {counted(len(config.jobs), 'job')}"
    _print([Finding("configuration", True, detail), *_region_findings(config)])
    return ExitCode.DONE if asyncio.run(_check(config)) else ExitCode.INCOMPLETE


def _region_findings(config: Config) -> list[Finding]:
    """A warning for each org whose region is unknown."""
    return [
        Finding(f"{org.name} region", True, f"{org.unknown_region} is no region of Genesys Cloud", org.region_fix)
        for org in config.orgs.values()
        if org.unknown_region is not None
    ]


async def _check(config: Config) -> bool:
    """Check the database, then the orgs; whether everything is in order."""
    try:
        async with open_database(config.database) as dsn:
            facts = await preflight.inspect_database(dsn)
            database_ok = _print(preflight.database_findings(facts))
            if facts.ready:
                database_ok = _print(await figure_findings(dsn, config, SystemClock().now())) and database_ok
            return await _check_orgs(config, dsn, facts) and database_ok
    except (DatabaseUnavailableError, SchemaError) as error:
        fix = "check database.dsn, that PostgreSQL runs there, and that it accepts this role"
        return _print([Finding("database", False, str(error), fix), _ORGS_NOT_CHECKED])
    except ConfigError as error:
        return _print(Finding("database", False, f"{fault.key}: {fault.message}") for fault in error.faults)


async def _check_orgs(config: Config, dsn: str, facts: Facts) -> bool:
    """Check every org and print the findings in the configuration's order."""
    tokens, clock = TokenRecorder(), SystemClock()

    def jobs(org: Org) -> list[Job]:
        return list(config.jobs_of(org).values())

    if (
        facts.unsupported
        or not facts.writable
        or facts.missing_privileges
        or (facts.schema_exists and facts.pending)
    ):
        return _print([_ORGS_NOT_CHECKED])
    if not facts.schema_exists:
        return await _check_each(
            config, lambda org: preflight.check_org_without_lease(org, clock, tokens, jobs(org))
        )
    async with Process(dsn, POOL_SIZE, tokens.emit).running() as runtime:
        return await _check_each(config, lambda org: preflight.check_org(runtime, org, tokens, jobs(org)))


async def _check_each(config: Config, check: Callable[[Org], Awaitable[list[Finding]]]) -> bool:
    slots = asyncio.Semaphore(CONCURRENT_ORGS)

    async def limited(org: Org) -> list[Finding]:
        async with slots:
            return await check(org)

    tasks = [asyncio.create_task(limited(org)) for org in config.orgs.values()]
    return all([_print(await task) for task in tasks])


def _print(findings: Iterable[Finding]) -> bool:
    """Print a line for each finding; whether all are in order."""
    all_ok = True
    for finding in findings:
        all_ok = all_ok and finding.ok
        fix = f" -> {finding.fix}" if finding.fix else ""
        line = f"{'ok  ' if finding.ok else 'FAIL'} {finding.subject}: {finding.detail}{fix}"
        print(printable(line), flush=True)
    return all_ok

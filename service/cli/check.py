"""``flow-outcomes check``: checks the setup and reports how to fix what is wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable

from rich.console import Console

from service.cli import ExitCode, configuration
from service.clock import SystemClock
from service.config import Config, Job, Org
from service.errors import ConfigError, DatabaseUnavailableError, SchemaError
from service.model import Finding, State
from service.postgres.probe import Facts
from service.runtime import Process, open_database, preflight
from service.runtime.export_check import export_findings
from service.runtime.figure_check import figure_findings
from service.runtime.preflight import TokenRecorder
from service.telemetry import counted, printable, redacted

CONCURRENT_ORGS = 16
POOL_SIZE = 4
_LABELS = {State.OK: "ok  ", State.WARNING: "WARN", State.FAILED: "FAIL", State.SKIPPED: "SKIP"}
_ORGS_NOT_CHECKED = Finding(
    "orgs",
    State.SKIPPED,
    "not checked: an org's queries need its lease, which is in the database",
    "fix the database first",
)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    report = _Report(as_json=arguments.json)
    detail = f"{counted(len(config.orgs), 'org')}, {counted(len(config.jobs), 'job')}"
    report.add([Finding("configuration", State.OK, detail), *_region_findings(config)])
    with Console(stderr=True).status("checking the database and the orgs"):  # shown on a terminal
        asyncio.run(_check(config, report))
    report.print_document()
    return ExitCode.INCOMPLETE if report.failed else ExitCode.DONE


class _Report:
    """The findings so far; each is printed when it is added, or all at the end as one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        self.failed = False
        self._as_json = as_json
        self._findings: list[Finding] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        for finding in findings:
            self.failed = self.failed or not finding.ok
            self._findings.append(finding)
            if not self._as_json:
                fix = f" -> {finding.fix}" if finding.fix else ""
                line = f"{_LABELS[finding.state]} {finding.subject}: {finding.detail}{fix}"
                print(printable(line), flush=True)

    def print_document(self) -> None:
        """Print the findings as JSON, where that was requested."""
        if self._as_json:
            checks = [{**each._asdict(), "state": each.state.value} for each in self._findings]
            print(redacted(json.dumps({"checks": checks}, indent=2)))


def _region_findings(config: Config) -> list[Finding]:
    """A warning for each org whose region is unknown."""
    return [
        Finding(
            f"{org.name} region",
            State.WARNING,
            f"{org.unknown_region} is no region of Genesys Cloud",
            org.region_fix,
        )
        for org in config.orgs.values()
        if org.unknown_region is not None
    ]


async def _check(config: Config, report: _Report) -> None:
    """Check the database, then the orgs, then the export."""
    try:
        async with open_database(config.database) as dsn:
            facts = await preflight.inspect_database(dsn)
            report.add(preflight.database_findings(facts))
            if facts.ready:
                report.add(await figure_findings(dsn, config, SystemClock().now()))
            await _check_orgs(config, dsn, facts, report)
            report.add(await export_findings(config, dsn if facts.ready else None))
            return
    except (DatabaseUnavailableError, SchemaError) as error:
        fix = "check database.dsn, that PostgreSQL runs there, and that it accepts this role"
        report.add([Finding("database", State.FAILED, str(error), fix), _ORGS_NOT_CHECKED])
    except ConfigError as error:
        report.add(Finding("database", State.FAILED, f"{fault.key}: {fault.message}") for fault in error.faults)
    report.add(await export_findings(config, None))


async def _check_orgs(config: Config, dsn: str, facts: Facts, report: _Report) -> None:
    """Check every org and report the findings in the configuration's order."""
    tokens, clock = TokenRecorder(), SystemClock()

    def jobs(org: Org) -> list[Job]:
        return list(config.jobs_of(org).values())

    if (
        facts.unsupported
        or not facts.writable
        or facts.missing_privileges
        or (facts.schema_exists and facts.pending)
    ):
        report.add([_ORGS_NOT_CHECKED])
    elif not facts.schema_exists:
        await _check_each(
            config, report, lambda org: preflight.check_org_without_lease(org, clock, tokens, jobs(org))
        )
    else:
        async with Process(dsn, POOL_SIZE, tokens.emit).running() as runtime:
            await _check_each(config, report, lambda org: preflight.check_org(runtime, org, tokens, jobs(org)))


async def _check_each(config: Config, report: _Report, check: Callable[[Org], Awaitable[list[Finding]]]) -> None:
    slots = asyncio.Semaphore(CONCURRENT_ORGS)

    async def limited(org: Org) -> list[Finding]:
        async with slots:
            return await check(org)

    for task in [asyncio.create_task(limited(org)) for org in config.orgs.values()]:
        report.add(await task)

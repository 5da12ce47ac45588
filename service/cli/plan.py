"""``flow-outcomes plan``: a dry run of what would be requested now, and how long it would take."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from rich.console import Console
from rich.table import Table

from service.cli import configuration
from service.cli.tables import console, short_instant
from service.clock import SystemClock
from service.config import Config
from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres.pool import Database
from service.postgres.probe import open_connection
from service.postgres.queries.status import check_readable
from service.runtime import open_database
from service.status import JobPlan, Plan, dry_run
from service.telemetry import counted, printable

NAME = "flow-outcomes plan"
DATABASE_TIMEOUT = 10.0  # seconds
POOL_SIZE = 1


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    plan = asyncio.run(_read(configuration.load(arguments)))
    if arguments.json:
        print(json.dumps(plan, indent=2))
    else:
        show(plan, console())
    return 0


async def _read(config: Config) -> Plan:
    """The plan; computed without the ledger where the database cannot be read."""
    now = SystemClock().now()
    try:
        async with open_database(config.database, make=False) as dsn:
            async with open_connection(dsn, NAME, timeout=DATABASE_TIMEOUT) as connection:
                await check_readable(connection)
            database = Database(dsn, size=POOL_SIZE, application_name=NAME, read_only=True)
            await database.open()
            try:
                return await dry_run(config, database, now)
            finally:
                await database.close()
    except (DatabaseUnavailableError, SchemaError) as error:
        sys.stderr.write(f"flow-outcomes: {printable(str(error))}; computed as if nothing were stored\n")
        return await dry_run(config, None, now)


def show(plan: Plan, output: Console) -> None:
    """Print the plan for people."""
    table = Table(box=None, pad_edge=False)
    for heading in ("org", "job"):
        table.add_column(heading, no_wrap=True)
    for heading in ("windows", "new", "lookback", "backlog", "deep", "scans", "queries", "pages"):
        table.add_column(heading, justify="right")
    for heading in ("from", "to", "begins"):
        table.add_column(heading, no_wrap=True)
    for name, org in plan["orgs"].items():
        for job, each in org["jobs"].items():
            table.add_row(name, job, *_cells(each, plan["at"]))
        if org["ad_hoc"]["windows"]:
            table.add_row(name, "ad hoc", *_cells(org["ad_hoc"], plan["at"]))
    output.print(table)
    any_guess = False
    for name, org in plan["orgs"].items():
        guess = any(each["guess"] and each["windows"] for each in (*org["jobs"].values(), org["ad_hoc"]))
        any_guess = any_guess or guess
        about = "about " if guess else ""
        output.print(
            f"{name}: {about}{counted(org['requests'], 'request')}, {about}{_duration(org['seconds'])}"
            f" at {org['requests_per_second']:g} a second",
            soft_wrap=True,
        )
        for warning in org["warnings"]:
            output.print(f"{name}: warning: {warning}", soft_wrap=True)
    if any_guess:
        output.print("about: no response was read yet, so pages per window are an estimate", soft_wrap=True)


def _cells(each: JobPlan, at: str) -> list[str]:
    kinds = (each["windows"], each["new"], each["lookback"], each["backlog"], each["deep_lookback"])
    counts = (*kinds, each["scans"], each["queries"])
    begins = "now" if each["begins"] == at else short_instant(each["begins"])
    pages = f"{each['pages']}{'?' if each['guess'] else ''}"
    return [
        *map(str, counts),
        pages,
        short_instant(each["first"] or ""),
        short_instant(each["last"] or ""),
        begins,
    ]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:g} s"

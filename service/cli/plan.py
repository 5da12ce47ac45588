"""``flow-outcomes plan``: a dry run, what would be asked now and how long that takes."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from rich.console import Console
from rich.table import Table

from service.cli.arguments import configured, declare
from service.clock import SystemClock
from service.config import Config
from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres.pool import Database
from service.postgres.probe import open_connection
from service.postgres.queries.status import check_readable
from service.runtime import open_database
from service.status import JobPlan, Plan, dry_run
from service.telemetry import printable

NAME = "flow-outcomes plan"
LOOK_WITHIN = 10.0
POOL_SIZE = 1
WIDTH = 160  # where the table goes into a file


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands,
        "plan",
        run,
        "a dry run: what would be asked now, and how long that takes",
        example="flow-outcomes plan --config /etc/flow-outcomes.yaml",
    )
    command.add_argument("--json", action="store_true", help="one JSON document, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    found = asyncio.run(_read(configured(arguments)))
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH))
    return 0


async def _read(config: Config) -> Plan:
    """The plan, reckoned without the ledger where that cannot be read."""
    now = SystemClock().now()
    try:
        async with open_database(config.database, make=False) as dsn:
            async with open_connection(dsn, NAME, timeout=LOOK_WITHIN) as connection:
                await check_readable(connection)
            database = Database(dsn, size=POOL_SIZE, application_name=NAME, read_only=True)
            await database.open()
            try:
                return await dry_run(config, database, now)
            finally:
                await database.close()
    except (DatabaseUnavailableError, SchemaError) as error:
        sys.stderr.write(f"flow-outcomes: {printable(str(error))}; reckoned as if nothing were stored yet\n")
        return await dry_run(config, None, now)


def show(plan: Plan, console: Console) -> None:
    """Print the plan for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("org", "job"):
        table.add_column(heading, no_wrap=True)
    for heading in ("windows", "new", "lookback", "backlog", "scans", "queries", "pages"):
        table.add_column(heading, justify="right")
    for heading in ("from", "to", "begins"):
        table.add_column(heading, no_wrap=True)
    for name, org in plan["orgs"].items():
        for job, each in org["jobs"].items():
            table.add_row(name, job, *_cells(each, plan["at"]))
        if org["ad_hoc"]["windows"]:
            table.add_row(name, "ad hoc", *_cells(org["ad_hoc"], plan["at"]))
    console.print(table)
    guessed = False
    for name, org in plan["orgs"].items():
        every = [*org["jobs"].values(), org["ad_hoc"]]
        about = "about " if any(each["guess"] for each in every if each["windows"]) else ""
        guessed = guessed or bool(about)
        console.print(
            f"{name}: {about}{org['requests']} requests, {about}{_time(org['seconds'])}"
            f" at {org['requests_per_second']:g} a second",
            soft_wrap=True,
        )
    if guessed:
        console.print("about: no answer was read yet, so the pages of a window are a guess", soft_wrap=True)


def _cells(each: JobPlan, at: str) -> list[str]:
    counts = (each["windows"], each["new"], each["lookback"], each["backlog"], each["scans"], each["queries"])
    begins = "now" if each["begins"] == at else _short(each["begins"])
    pages = f"{each['pages']}{'?' if each['guess'] else ''}"
    return [*map(str, counts), pages, _short(each["first"] or ""), _short(each["last"] or ""), begins]


def _short(at: str) -> str:
    return at.replace(":00.000Z", "Z").replace("T00:00Z", "")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:g} s"

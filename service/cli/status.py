"""``flow-outcomes status``: what is stored, what is missing and why, per org and job."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import datetime, timedelta
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.arguments import configured, declare
from service.clock import SystemClock
from service.config import Config
from service.postgres.probe import open_connection
from service.runtime import open_database
from service.status import Gap, OrgStatus, Status, read_status
from service.telemetry import printable

PATIENCE = 30.0  # seconds that the database gets
MOST_LINES = 20  # of one job's gaps, those that follow one another for one reason in one line
WIDTH = 160  # where the table goes into a file


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands,
        "status",
        run,
        "what is stored, what is missing and why",
        example="flow-outcomes status --config /etc/flow-outcomes.yaml --json",
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


async def _read(config: Config) -> Status:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, "flow-outcomes status", timeout=PATIENCE) as connection,
    ):
        return await read_status(connection, config, SystemClock().now())


def show(found: Status, console: Console) -> None:
    """Print the document for people; whatever text it holds comes out as text."""
    now = datetime.fromisoformat(found["at"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("org", "job"):
        table.add_column(heading, no_wrap=True)
    for heading in ("complete", "pending", "running", "failed", "gaps"):
        table.add_column(heading, justify="right")
    for heading in ("newest complete", "age"):
        table.add_column(heading, no_wrap=True)
    for name, org in found["orgs"].items():
        for job, each in org["jobs"].items():
            counts, newest = each["windows"], each["newest_complete"]
            table.add_row(
                name,
                job,
                str(counts["complete"]),
                str(counts["pending"]),
                str(counts["running"]),
                _red(counts["failed"]),
                _red(len(each["gaps"])),
                _short(newest) if newest else "none",
                _age(now - datetime.fromisoformat(newest)) if newest else "",
            )
        counts = org["ad_hoc"]["windows"]
        if sum((counts["complete"], counts["pending"], counts["running"], counts["failed"])):
            table.add_row(
                name,
                Text("ad hoc", "italic"),
                str(counts["complete"]),
                str(counts["pending"]),
                str(counts["running"]),
                _red(counts["failed"]),
                _red(len(org["ad_hoc"]["gaps"])),
            )
    console.print(table)
    for name, org in found["orgs"].items():
        for line in (*_held(name, org), *_missing(name, org)):
            console.print(line, soft_wrap=True)


def _held(name: str, org: OrgStatus) -> list[Text]:
    """What holds an org back."""
    lines = []
    if org["owner"] is None:
        lines.append(Text(f"{name}: no process works it now"))
    if org["breaker"] != "closed":
        until = f" until {_short(org['breaker_until'])}" if org["breaker_until"] else ""
        lines.append(Text(f"{name}: its breaker is {org['breaker']}{until}", "red"))
    if org["paused_for"]:
        lines.append(Text(f"{name}: the API asked to wait, for {org['paused_for']:.0f} s more", "yellow"))
    return lines


def _missing(name: str, org: OrgStatus) -> list[Text]:
    """An org's gaps, and the errors of what is stored all the same."""
    lines = []
    work = {job: each["gaps"] for job, each in org["jobs"].items()} | {"ad hoc": org["ad_hoc"]["gaps"]}
    for job, gaps in work.items():
        runs = _runs(gaps)
        for first, last, count in runs[:MOST_LINES]:
            windows = f" ({count} windows)" if count > 1 else ""
            span = f"{_short(first['window_start'])} to {_short(last['window_end'])}{windows}"
            lines.append(Text(f"{name} {job}: {span} {first['state']}: {printable(first['reason'])}"))
        if len(runs) > MOST_LINES:
            lines.append(Text(f"{name} {job}: and {sum(run[2] for run in runs[MOST_LINES:])} more windows"))
    for each in org["last_errors"]:
        span = f"{_short(each['window_start'])} to {_short(each['window_end'])}"
        lines.append(Text(f"{name} {each['job'] or 'ad hoc'}: {span} complete, but: {printable(each['reason'])}"))
    return lines


def _runs(gaps: list[Gap]) -> list[tuple[Gap, Gap, int]]:
    """Gaps that follow one another in one state for one reason: the first, the last and how many."""
    found = []
    for _, group in groupby(gaps, key=lambda gap: (gap["state"], gap["reason"])):
        run: list[Gap] = []
        for gap in group:
            if run and run[-1]["window_end"] != gap["window_start"]:
                found.append((run[0], run[-1], len(run)))
                run = []
            run.append(gap)
        found.append((run[0], run[-1], len(run)))
    return found


def _red(count: int) -> Text:
    return Text(str(count), "bold red" if count else "")


def _short(at: str) -> str:
    return at.replace(":00.000Z", "Z").replace("T00:00Z", "")


def _age(span: timedelta) -> str:
    hours = max(0, int(span.total_seconds() // 3600))
    return f"{hours // 24} d {hours % 24} h" if hours >= 24 else f"{hours} h"  # noqa: PLR2004 - hours of a day

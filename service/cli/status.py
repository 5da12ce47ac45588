"""``flow-outcomes status``: what is stored, what is missing and why, by org and job."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import datetime, timedelta
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli import configuration
from service.cli.tables import console, short_instant
from service.clock import SystemClock
from service.config import Config
from service.postgres.probe import open_connection
from service.runtime import open_database
from service.status import ExportStatus, Gap, OrgStatus, Status, Windows, read_status
from service.telemetry import counted, printable

DATABASE_TIMEOUT = 30.0  # seconds
MAX_GAP_LINES = 20
"""Lines for the gaps of one job; adjacent gaps with one state and reason share a line."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    status = asyncio.run(_read(configuration.load(arguments)))
    if arguments.json:
        print(json.dumps(status, indent=2))
    else:
        show(status, console())
    return 0


async def _read(config: Config) -> Status:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, "flow-outcomes status", timeout=DATABASE_TIMEOUT) as connection,
    ):
        return await read_status(connection, config, SystemClock().now())


def show(status: Status, output: Console) -> None:
    """Print the document for people; markup and control characters in it are printed as text."""
    now = datetime.fromisoformat(status["at"])
    table = Table(box=None, pad_edge=False)
    for heading in ("org", "job"):
        table.add_column(heading, no_wrap=True)
    for heading in ("complete", "pending", "running", "failed", "gaps"):
        table.add_column(heading, justify="right")
    for heading in ("newest complete", "age"):
        table.add_column(heading, no_wrap=True)
    for name, org in status["orgs"].items():
        for job, each in org["jobs"].items():
            newest = each["newest_complete"]
            age = _age(now - datetime.fromisoformat(newest)) if newest else ""
            counts = _counts(each["windows"], each["gaps"])
            table.add_row(name, job, *counts, short_instant(newest) if newest else "none", age)
        ad_hoc = org["ad_hoc"]["windows"]
        if any((ad_hoc["complete"], ad_hoc["pending"], ad_hoc["running"], ad_hoc["failed"])):
            table.add_row(name, Text("ad hoc", "italic"), *_counts(ad_hoc, org["ad_hoc"]["gaps"]))
    output.print(table)
    for name, org in status["orgs"].items():
        for line in (*_blockers(name, org), *_gaps(name, org), *_last_errors(name, org)):
            output.print(line, soft_wrap=True)
    if status["export"] is not None:
        output.print(_export(status["export"], now), soft_wrap=True)


def _export(export: ExportStatus, now: datetime) -> Text:
    """A line about the warehouse."""
    warehouse = f"export to {printable(export['warehouse'])}"
    if export["exported_at"] is None:
        line = Text(f"{warehouse}: none yet")
    else:
        age = _age(now - datetime.fromisoformat(export["exported_at"]))
        line = Text(f"{warehouse}: number {export['export']} of {short_instant(export['exported_at'])}, {age} old")
    if export["owner"] is not None:
        line.append("; one is running")
    if export["failed_at"] is not None:
        reason = printable(export["last_error"] or "")
        line.append(f"; failed at {short_instant(export['failed_at'])}: {reason}", "red")
    return line


def _counts(windows: Windows, gaps: list[Gap]) -> list[Text]:
    plain = (windows["complete"], windows["pending"], windows["running"])
    return [*(Text(str(count)) for count in plain), _red(windows["failed"]), _red(len(gaps))]


def _blockers(name: str, org: OrgStatus) -> list[Text]:
    """What keeps the org's windows waiting."""
    lines = []
    if org["owner"] is None:
        lines.append(Text(f"{name}: no daemon currently holds this org"))
    if org["breaker"] != "closed":
        until = f" until {short_instant(org['breaker_until'])}" if org["breaker_until"] else ""
        lines.append(Text(f"{name}: circuit breaker is {org['breaker']}{until}", "red"))
    if org["paused_for"]:
        lines.append(Text(f"{name}: rate-limited by the API for {org['paused_for']:.0f} s more", "yellow"))
    return lines


def _gaps(name: str, org: OrgStatus) -> list[Text]:
    lines = []
    gaps_by_job = {job: each["gaps"] for job, each in org["jobs"].items()} | {"ad hoc": org["ad_hoc"]["gaps"]}
    for job, gaps in gaps_by_job.items():
        runs = _adjacent(gaps)
        for run in runs[:MAX_GAP_LINES]:
            count = f" ({len(run)} windows)" if len(run) > 1 else ""
            span = f"{short_instant(run[0]['window_start'])} to {short_instant(run[-1]['window_end'])}{count}"
            lines.append(Text(f"{name} {job}: {span} {run[0]['state']}: {printable(run[0]['reason'])}"))
        if more := sum(len(run) for run in runs[MAX_GAP_LINES:]):
            lines.append(Text(f"{name} {job}: {counted(more, 'more window')}"))
    lines.extend(
        Text(f"{name} ad hoc {entry['name']}: refused: {printable(entry['reason'])}", "bold red")
        for entry in org["ad_hoc"]["refused"]
    )
    return lines


def _last_errors(name: str, org: OrgStatus) -> list[Text]:
    """Errors of windows that stay complete."""
    lines = []
    for error in org["last_errors"]:
        span = f"{short_instant(error['window_start'])} to {short_instant(error['window_end'])}"
        reason = printable(error["reason"])
        lines.append(Text(f"{name} {error['job'] or 'ad hoc'}: {span} complete; last extraction: {reason}"))
    return lines


def _adjacent(gaps: list[Gap]) -> list[list[Gap]]:
    """Group gaps that follow one another with one state and reason."""
    runs: list[list[Gap]] = []
    for _, group in groupby(gaps, key=lambda gap: (gap["state"], gap["reason"])):
        run: list[Gap] = []
        for gap in group:
            if run and run[-1]["window_end"] != gap["window_start"]:
                runs.append(run)
                run = []
            run.append(gap)
        runs.append(run)
    return runs


def _red(count: int) -> Text:
    return Text(str(count), "bold red" if count else "")


def _age(span: timedelta) -> str:
    days, hours = divmod(max(0, span // timedelta(hours=1)), 24)
    return f"{days} d {hours} h" if days else f"{hours} h"

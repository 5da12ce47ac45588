"""``flow-outcomes prune``: removes old months, or shows what would be removed."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import date, datetime
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from service.cli import ExitCode, configuration
from service.cli.tables import console
from service.clock import SystemClock
from service.config import Config, values
from service.errors import ConfigError, Fault
from service.postgres import prune
from service.postgres.probe import open_connection
from service.postgres.prune import Prune, PrunedMonth
from service.runtime import open_database
from service.telemetry import counted, printable

NAME = "flow-outcomes prune"
TIMEOUT = 86400.0
"""Seconds for the removal; a month that shares its partition with monthly figures is deleted row by row."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    what = Prune.of(_before(arguments.before, SystemClock().now()), keep_monthly=arguments.keep_monthly)
    result = asyncio.run(_prune(config, what, remove=arguments.yes))
    if arguments.json:
        print(json.dumps(_document(what, result, removed=arguments.yes), indent=2))
    else:
        show(what, result, console(), removed=arguments.yes)
    return ExitCode.DONE


class _Result(NamedTuple):
    """What is or was to be removed: the months, the windows by org, and the partitions that were dropped."""

    months: list[PrunedMonth]
    windows: dict[str, int]
    dropped: list[str]


def _before(text: str, now: datetime) -> date:
    """The date of ``--before``.

    Raises:
        ConfigError: it is no date, or later than today.
    """
    try:
        day = values.day(text)
    except ValueError as error:
        raise ConfigError([Fault("--before", f"{text!r} {error}")]) from None
    if day > now.date():
        raise ConfigError([Fault("--before", f"must not be later than today, {now.date()} in UTC")])
    return day


async def _prune(config: Config, what: Prune, *, remove: bool) -> _Result:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, NAME, timeout=TIMEOUT, read_only=not remove) as connection,
    ):
        months, windows = await prune.months(connection, what), await prune.windows(connection, what)
        dropped = await prune.prune_months(connection, what, months, list(config.orgs)) if remove else []
    return _Result(months, windows, dropped)


def _document(what: Prune, result: _Result, *, removed: bool) -> dict[str, object]:
    return {
        "before": what.before.date().isoformat(),
        "keep_monthly": what.keep_monthly,
        "removed": removed,
        "months": [{**each._asdict(), "month": f"{each.month:%Y-%m}"} for each in result.months],
        "windows": result.windows,
        "partitions_dropped": result.dropped,
    }


def show(what: Prune, result: _Result, output: Console, *, removed: bool) -> None:
    """Print the result for people."""
    day = what.before.date()
    if result.months:
        table = Table(box=None, pad_edge=False)
        for heading in ("org", "granularity", "month"):
            table.add_column(heading, no_wrap=True)
        for heading in ("figures", "history"):
            table.add_column(heading, justify="right")
        for each in result.months:
            month = f"{each.month:%Y-%m}"
            table.add_row(printable(each.org), each.granularity, month, str(each.figures), str(each.history))
        output.print(table)
    figures = sum(each.figures for each in result.months)
    history = sum(each.history for each in result.months)
    total = (
        f"{counted(figures, 'figure')}, {counted(history, 'previous version')} and"
        f" {counted(sum(result.windows.values()), 'window')} before {day} (UTC)"
    )
    if removed:
        print(f"removed {total}; {counted(len(result.dropped), 'partition')} dropped")
        print(f"nothing before {day} is extracted again")
    else:
        print(f"would remove {total}; add --yes to remove them, after exporting what is to stay")

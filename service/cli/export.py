"""``flow-outcomes export``: brings the warehouse up to date, or writes plain Parquet files."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from rich.text import Text

from service.cli import configuration
from service.cli.tables import console
from service.config import Config
from service.errors import ConfigError, Fault
from service.export import Exported, export, write_folder
from service.runtime import open_database
from service.telemetry import counted, printable


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments, traced=True)
    if arguments.parquet is not None:
        asyncio.run(_write_folder(config, arguments.parquet))
    else:
        asyncio.run(_export(config, full=arguments.full))
    return 0


async def _write_folder(config: Config, folder: Path) -> None:
    async with open_database(config.database) as dsn:
        done = await write_folder(dsn, folder)
    print(f"wrote {counted(done.files, 'file')} with {counted(done.rows, 'row')} to {folder}")


async def _export(config: Config, *, full: bool) -> None:
    if config.export is None:
        raise ConfigError([Fault("export", "is required, or --parquet DIR for plain files")])
    async with open_database(config.database) as dsn:
        show(await export(dsn, config.export, full=full), config.export.target)


def show(done: Exported, target: str) -> None:
    """Print the result."""
    warehouse = target.partition(" ")[0]
    if not done.tables:
        print(f"export {done.number} to {warehouse}: nothing new")
    else:
        written = f"wrote {counted(done.files, 'month')} with {counted(done.rows, 'row')}"
        print(f"export {done.number} to {warehouse}: {written}")
    output = console()
    for name, table in done.tables.items():
        reason = f" ({table.reason})" if table.reason else ""
        text = f"  {name}: {counted(table.files, 'month')}, {counted(table.rows, 'row')}{reason}; {table.location}"
        output.print(Text(printable(text)), soft_wrap=True)
    for months, what in (
        (done.left_alone, "left as it is, this database does not hold it"),
        (done.missing, "a file is missing, and this database does not hold the month"),
    ):
        for each in months:
            output.print(Text(printable(f"  {each}: {what}"), "yellow"), soft_wrap=True)

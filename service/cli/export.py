"""``flow-outcomes export``: the figures as Parquet files for a warehouse."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from service.cli import configuration
from service.config import Config
from service.export import Exported, export
from service.runtime import open_database
from service.telemetry import counted


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    done = asyncio.run(_export(configuration.load(arguments), arguments.to, since_last=arguments.since_last))
    print(
        f"export {done.number} to {arguments.to}: wrote {counted(done.files, 'file')} with"
        f" {counted(done.rows, 'row')}, {done.removed} removed, {done.unchanged} unchanged"
    )
    return 0


async def _export(config: Config, folder: Path, *, since_last: bool) -> Exported:
    async with open_database(config.database) as dsn:
        return await export(dsn, folder, since_last=since_last)

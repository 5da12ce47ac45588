"""``flow-outcomes export``: the figures as Parquet files, for a warehouse."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from service.cli.arguments import configured, declare
from service.config import Config
from service.export import Exported, export
from service.runtime import open_database


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands,
        "export",
        run,
        "the figures as Parquet files, for a warehouse",
        example="flow-outcomes export --config flow-outcomes.yaml --to /srv/flow-outcomes --since-last",
    )
    command.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="a folder, empty or of an earlier export"
    )
    command.add_argument(
        "--since-last", action="store_true", help="only the months in which something changed since the last one"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    done = asyncio.run(_export(configured(arguments), arguments.to, since_last=arguments.since_last))
    print(
        f"export {done.number} into {arguments.to}: {done.files} files with {done.rows} rows written,"
        f" {done.removed} removed, {done.unchanged} unchanged"
    )
    return 0


async def _export(config: Config, folder: Path, *, since_last: bool) -> Exported:
    async with open_database(config.database) as dsn:
        return await export(dsn, folder, since_last=since_last)

"""``flow-outcomes migrate``: bring the schema up."""

from __future__ import annotations

import argparse
import asyncio

from service.cli.arguments import configured, declare
from service.config import Config
from service.postgres.migrate import migrate
from service.runtime import open_database


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    declare(
        commands,
        "migrate",
        run,
        "bring the schema up",
        example="flow-outcomes migrate --config flow-outcomes.yaml",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    applied = asyncio.run(_migrate(configured(arguments)))
    for migration in applied:
        print(f"applied {migration}")
    if not applied:
        print("the schema is up to date")
    return 0


async def _migrate(config: Config) -> list[str]:
    async with open_database(config.database) as dsn:
        return await asyncio.to_thread(migrate, dsn)

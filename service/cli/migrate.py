"""``flow-outcomes migrate``: brings the schema up to date."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from service.cli import configuration
from service.config import Config
from service.runtime import apply_migrations, open_database


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    applied = asyncio.run(_migrate(configuration.load(arguments)))
    if arguments.json:
        print(json.dumps({"applied": applied}, indent=2))
        return 0
    for migration in applied:
        print(f"applied {migration}")
    if not applied:
        print("the schema is up to date")
    return 0


async def _migrate(config: Config) -> list[str]:
    async with open_database(config.database) as dsn:
        return await apply_migrations(dsn, lambda reason: print(reason, file=sys.stderr))

"""``flow-outcomes rejected``: rejected entries with the reason."""

from __future__ import annotations

import argparse
import asyncio
import json
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli import configuration
from service.cli.tables import console
from service.config import Config
from service.errors import ConfigError
from service.postgres.probe import open_connection
from service.postgres.queries import rejects
from service.postgres.queries.rejects import RejectedEntry
from service.runtime import open_database
from service.telemetry import counted, printable

DATABASE_TIMEOUT = 30.0  # seconds
NAME_WIDTH, TEXT_WIDTH = 64, 200
FILE_WIDTH = 200


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    if arguments.org is not None and arguments.org not in config.orgs:
        raise ConfigError([configuration.unknown_org(config, arguments.org)])
    entries, total = asyncio.run(_read(config, arguments.org, arguments.limit))
    if arguments.json:
        document = [{key: _to_json(value) for key, value in entry._asdict().items()} for entry in entries]
        print(json.dumps({"total": total, "rejected": document}, indent=2))
    elif entries:
        show(entries, console(file_width=FILE_WIDTH))
        print(f"{len(entries)} of {counted(total, 'rejected outcome')}; --json prints complete entries")
    else:
        print("no rejected entries")
    return 0


async def _read(config: Config, org: str | None, limit: int) -> tuple[list[RejectedEntry], int]:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, "flow-outcomes rejected", timeout=DATABASE_TIMEOUT) as connection,
    ):
        return await rejects.latest(connection, org, limit), await rejects.count(connection, org)


def show(entries: list[RejectedEntry], output: Console) -> None:
    """Print entries for people; markup and control characters in them are printed as text."""
    table = Table(box=None, pad_edge=False)
    for heading in ("org", "window", "flow", "outcome", "reason", "entry"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        table.add_row(
            entry.org,
            f"{entry.window_start:%Y-%m-%d %H:%M} to {entry.window_end:%Y-%m-%d %H:%M}",
            _shortened(entry.flow_id or "unknown", NAME_WIDTH),
            _shortened(entry.outcome_name or "unknown", NAME_WIDTH),
            _shortened(entry.reason, TEXT_WIDTH),
            _shortened(entry.entry, TEXT_WIDTH),
        )
    output.print(table)


def _shortened(text: str, width: int) -> Text:
    shown = printable(text[:width])
    return Text(shown if len(text) <= width and len(shown) <= width else f"{shown[: width - 1]}…")


def _to_json(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value

"""``flow-outcomes rejected``: entries that were refused, with the reason."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.arguments import configured, declare
from service.config import Config
from service.errors import ConfigError, Fault
from service.postgres.probe import open_connection
from service.postgres.queries import rejects
from service.postgres.queries.rejects import RejectedEntry
from service.runtime import open_database
from service.telemetry import printable

PATIENCE = 30.0  # seconds that the database gets
LIMIT = 50
TEXT_SHOWN = 200
WIDTH = 200  # where the table goes into a file


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands,
        "rejected",
        run,
        "entries that were refused, with the reason, the latest first",
        example="flow-outcomes rejected --config flow-outcomes.yaml --org acme --limit 10",
    )
    command.add_argument("--org", help="of this org alone")
    command.add_argument("--limit", type=_whole, default=LIMIT, metavar="N", help=f"at most so many; {LIMIT}")
    command.add_argument("--json", action="store_true", help="one JSON document, with each entry whole")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    config = configured(arguments)
    if arguments.org is not None and arguments.org not in config.orgs:
        raise ConfigError([Fault("--org", f"no org {arguments.org!r}; there are {', '.join(config.orgs)}")])
    found, total = asyncio.run(_read(config, arguments.org, arguments.limit))
    if arguments.json:
        told = [{key: _iso(value) for key, value in entry._asdict().items()} for entry in found]
        print(json.dumps({"total": total, "rejected": told}, indent=2))
    elif found:
        show(found, Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH))
        print(f"{len(found)} of {total} refused outcomes; --json prints the entries whole")
    else:
        print("nothing was rejected")
    return 0


async def _read(config: Config, org: str | None, limit: int) -> tuple[list[RejectedEntry], int]:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, "flow-outcomes rejected", timeout=PATIENCE) as connection,
    ):
        return await rejects.latest(connection, org, limit), await rejects.count(connection, org)


def show(found: list[RejectedEntry], console: Console) -> None:
    """Print the entries for people; whatever text they hold comes out as text."""
    table = Table(box=None, pad_edge=False)
    for head in ("org", "window", "flow", "outcome", "reason", "entry"):
        table.add_column(head, overflow="fold")
    for entry in found:
        table.add_row(
            entry.org,
            f"{entry.window_start:%Y-%m-%d %H:%M} to {entry.window_end:%Y-%m-%d %H:%M}",
            *(
                Text(_cut(text, width))
                for text, width in (
                    (entry.flow_id or "not told", 64),
                    (entry.outcome_name or "not told", 64),
                    (entry.reason, TEXT_SHOWN),
                    (entry.entry, TEXT_SHOWN),
                )
            ),
        )
    console.print(table)


def _cut(text: str, width: int) -> str:
    shown = printable(text[:width])
    return shown if len(text) <= width and len(shown) <= width else f"{shown[: width - 1]}…"


def _iso(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return min(int(text), 1_000_000)

"""``flow-outcomes alias``: the mapping table, which says what outcomes are called."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.arguments import configured, declare
from service.config import Config
from service.errors import ConfigError, DatabaseUnavailableError, Fault
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.pool import Database
from service.runtime import ensure_migrated, open_database
from service.telemetry import Reporter, printable

WIDTH = 200  # where the table goes into a file
PATIENCE = 10.0  # seconds to wait for a database that is away


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    text = "say what outcomes are called: by another name, for all flows or one"
    actions = commands.add_parser("alias", help=text, description=text).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    call = "flow-outcomes alias {} --config flow-outcomes.yaml --org acme"
    add = declare(
        actions,
        "add",
        _run(_add),
        "call an outcome by a new name, also in the figures that are stored",
        example=f"{call.format('add')} Paid Settled",
    )
    remove = declare(
        actions,
        "remove",
        _run(_remove),
        "take an alias back: the old name returns, figure for figure",
        example=f"{call.format('remove')} Paid",
    )
    listed = declare(actions, "list", _run(_list), "show the org's aliases", example=call.format("list"))
    for command in (add, remove, listed):
        command.add_argument("--org", required=True, help="the org's name")
    for command in (add, remove):
        command.add_argument("--flow", metavar="ID", help="for this flow alone; beats the entry for all of them")
        command.add_argument("old", metavar="OLD", help="the name that the API gives")
    add.add_argument("new", metavar="NEW", help="the name to show in its place")
    remove.add_argument("new", metavar="NEW", nargs="?", help="only if it is this one")
    listed.add_argument("--flow", metavar="ID", help="what holds for this flow: its own, and those for all flows")
    listed.add_argument("--json", action="store_true", help="one JSON document")


def _run(act: Callable[[Config, argparse.Namespace], Awaitable[None]]) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        config = configured(arguments)
        faults = []
        if arguments.org not in config.orgs:
            faults.append(Fault("--org", f"no org {arguments.org!r}; there are {', '.join(config.orgs)}"))
        for key, name in (("--flow", "flow"), ("OLD", "old"), ("NEW", "new")):
            text = getattr(arguments, name, None)
            if text is not None and (fault := aliases.name_fault(text)):
                faults.append(Fault(key, fault))
        if faults:
            raise ConfigError(faults)

        async def acting() -> None:
            await act(config, arguments)

        asyncio.run(acting())
        return 0

    return run


async def _add(config: Config, arguments: argparse.Namespace) -> None:
    alias = Alias(arguments.org, arguments.flow, arguments.old, arguments.new)
    async with _opened(config) as database:
        former = await aliases.add(database, alias)
        if former == alias.new_name:
            print(f"{_told(alias)} already")
        else:
            print(_told(alias) + ("" if former is None else f", no longer {printable(former)}"))
        await _take_hold(database, alias.org)


async def _remove(config: Config, arguments: argparse.Namespace) -> None:
    async with _opened(config) as database:
        alias = await aliases.remove(database, arguments.org, arguments.flow, arguments.old, arguments.new)
        print(f"removed: {_told(alias)}")
        await _take_hold(database, alias.org)


async def _list(config: Config, arguments: argparse.Namespace) -> None:
    async with _opened(config) as database:
        found = await aliases.entries(database, arguments.org)
    if arguments.flow is not None:
        found = [alias for alias in found if alias.flow_id in (None, arguments.flow)]
    if arguments.json:
        print(json.dumps({"aliases": [alias._asdict() for alias in found]}, indent=2))
    elif found:
        table = Table(box=None, pad_edge=False)
        for head in ("flow", "old name", "new name"):
            table.add_column(head, overflow="fold")
        for alias in found:
            table.add_row(
                *(Text(printable(text)) for text in (alias.flow_id or "all", alias.old_name, alias.new_name))
            )
        Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)
    else:
        print(f"{arguments.org} has no aliases")


async def _take_hold(database: Database, org: str) -> None:
    """Rename at once what is stored: there may be no daemon to do it."""
    try:
        renamed = await aliases.apply(database, org)
    except DatabaseUnavailableError as error:
        print(f"what is stored gets its names from the daemon, within a minute ({error})")
        return
    if renamed:
        Reporter().emit("alias_applied", org=org, outcomes=renamed)
    print(f"{renamed} stored {'outcome has' if renamed == 1 else 'outcomes have'} another name now")


def _told(alias: Alias) -> str:
    place = "all flows" if alias.flow_id is None else f"flow {printable(alias.flow_id)}"
    return f"{printable(alias.old_name)} → {printable(alias.new_name)} in {place} of {alias.org}"


@asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[Database]:
    async with open_database(config.database) as dsn:
        await ensure_migrated(dsn, Reporter().emit, timeout=PATIENCE)
        database = Database(dsn, size=2, application_name="flow-outcomes alias")
        await database.open()
        try:
            yield database
        finally:
            await database.close()

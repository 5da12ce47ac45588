"""``flow-outcomes alias``: edits the table that maps reported outcome names to the names to show."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from rich.table import Table
from rich.text import Text

from service.cli import configuration
from service.cli.argument_parser import suggestion
from service.cli.tables import console
from service.config import Config
from service.errors import ConfigError, DatabaseUnavailableError, Fault
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.pool import Database
from service.runtime import ensure_migrated, open_database
from service.telemetry import Event, Reporter, counted, printable

FILE_WIDTH = 200
DATABASE_TIMEOUT = 10.0  # seconds


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    _validate(config, arguments)
    action = {"add": _add, "remove": _remove, "list": _list}[arguments.action]
    asyncio.run(action(config, arguments))
    return 0


def _validate(config: Config, arguments: argparse.Namespace) -> None:
    faults = []
    if arguments.org not in config.orgs:
        faults.append(configuration.unknown_org(config, arguments.org))
    for key, name in (("--flow", "flow"), ("OLD", "old"), ("NEW", "new")):
        text = getattr(arguments, name, None)
        if text is not None and (fault := aliases.name_fault(text)):
            faults.append(Fault(key, fault))
    if faults:
        raise ConfigError(faults)


async def _add(config: Config, arguments: argparse.Namespace) -> None:
    alias = Alias(arguments.org, arguments.flow, arguments.old, arguments.new)
    async with _database(config) as database:
        former = await aliases.add(database, alias)
        warnings = [warning async for warning in _warnings(database, alias)]
        renamed = await _apply(database, alias.org)
    for warning in warnings:
        sys.stderr.write(f"warning: {printable(warning)}\n")
    if arguments.json:
        document = {"alias": alias._asdict(), "replaced": former, "renamed": renamed, "warnings": warnings}
        print(json.dumps(document, indent=2))
        return
    if former == alias.new_name:
        print(f"{_describe(alias)} (unchanged)")
    else:
        print(_describe(alias) + ("" if former is None else f", replacing {printable(former)}"))
    _print_renamed(renamed)


async def _warnings(database: Database, alias: Alias) -> AsyncIterator[str]:
    """What the alias names and no scan has reported yet."""
    if alias.flow_id is not None and alias.flow_id not in (
        flows := await aliases.known_flows(database, alias.org)
    ):
        yield f"no flow {alias.flow_id!r} was reported yet{_meant(alias.flow_id, flows)}"
    names = await aliases.known_names(database, alias.org, alias.flow_id)
    if alias.old_name not in names:
        yield f"no outcome {alias.old_name!r} was reported yet{_meant(alias.old_name, names)}"


def _meant(text: str, known: Iterable[str]) -> str:
    meant = suggestion(text, known)
    return f"; {meant}" if meant else ""


async def _remove(config: Config, arguments: argparse.Namespace) -> None:
    async with _database(config) as database:
        alias = await aliases.remove(database, arguments.org, arguments.flow, arguments.old, arguments.new)
        renamed = await _apply(database, alias.org)
    if arguments.json:
        print(json.dumps({"removed": alias._asdict(), "renamed": renamed}, indent=2))
        return
    print(f"removed: {_describe(alias)}")
    _print_renamed(renamed)


async def _list(config: Config, arguments: argparse.Namespace) -> None:
    async with _database(config) as database:
        entries = await aliases.entries(database, arguments.org)
    if arguments.flow is not None:
        entries = [alias for alias in entries if alias.flow_id in (None, arguments.flow)]
    if arguments.json:
        print(json.dumps({"aliases": [alias._asdict() for alias in entries]}, indent=2))
    elif entries:
        table = Table(box=None, pad_edge=False)
        for heading in ("flow", "old name", "new name"):
            table.add_column(heading, overflow="fold")
        for alias in entries:
            cells = (alias.flow_id or "all", alias.old_name, alias.new_name)
            table.add_row(*(Text(printable(text)) for text in cells))
        console(file_width=FILE_WIDTH).print(table)
    else:
        print(f"{arguments.org} has no aliases")


async def _apply(database: Database, org: str) -> int | None:
    """Apply the aliases to stored outcomes now: no daemon may be running; None where they were not applied."""
    try:
        renamed = await aliases.apply(database, org)
    except DatabaseUnavailableError as error:
        message = f"stored outcomes are not renamed yet; a running daemon does it within a minute ({error})"
        sys.stderr.write(f"warning: {printable(message)}\n")
        return None
    if renamed:
        Reporter().emit(Event.ALIAS_APPLIED, org=org, outcomes=renamed)
    return renamed


def _print_renamed(renamed: int | None) -> None:
    if renamed is not None:
        print(f"renamed {counted(renamed, 'stored outcome')}")


def _describe(alias: Alias) -> str:
    scope = "all flows" if alias.flow_id is None else f"flow {printable(alias.flow_id)}"
    return f"{printable(alias.old_name)} → {printable(alias.new_name)} in {scope} of {alias.org}"


@asynccontextmanager
async def _database(config: Config) -> AsyncIterator[Database]:
    async with open_database(config.database) as dsn:
        await ensure_migrated(dsn, Reporter().emit, timeout=DATABASE_TIMEOUT)
        database = Database(dsn, size=2, application_name="flow-outcomes alias")
        await database.open()
        try:
            yield database
        finally:
            await database.close()

"""``flow-outcomes alias suggest``: pairs of names that are probably one outcome before and after a rename."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
from pathlib import Path
from typing import Any

from service.cli import configuration
from service.cli.parser import CONFIG_FILE, CONFIG_VARIABLE
from service.config import Config
from service.errors import ConfigError, Fault
from service.model import instant
from service.postgres import aliases
from service.postgres.probe import open_connection
from service.postgres.queries.suggestions import Suggestion, suggestions
from service.runtime import open_database
from service.telemetry import printable

DATABASE_TIMEOUT = 120.0
"""Seconds: the search reads every series of the org."""
_CLEAR, _LIKELY = 0.9, 0.75


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments)
    if arguments.org not in config.orgs:
        raise ConfigError([configuration.unknown_org(config, arguments.org)])
    if arguments.flow is not None and (fault := aliases.name_fault(arguments.flow)):
        raise ConfigError([Fault("--flow", fault)])
    rows = asyncio.run(_read(config, arguments.org, arguments.flow))
    if arguments.json:
        print(json.dumps({"suggestions": [_document(each, arguments.config) for each in rows]}, indent=2))
    elif rows:
        print("\n\n".join(_text(each, arguments.config) for each in rows))
    else:
        print(f"no aliases to suggest in {arguments.org}{_reason(config, arguments.org)}")
    return 0


async def _read(config: Config, org: str, flow_id: str | None) -> list[Suggestion]:
    async with (
        open_database(config.database, make=False) as dsn,
        open_connection(dsn, "flow-outcomes alias", timeout=DATABASE_TIMEOUT) as connection,
    ):
        return await suggestions(connection, org, flow_id)


def _reason(config: Config, org: str) -> str:
    if config.orgs[org].api == "flow-aggregates":
        return ": its API identifies outcomes by id, and figures follow a rename"
    return ""


def _document(each: Suggestion, config_file: Path) -> dict[str, Any]:
    """The suggestion as JSON, with names as reported; the command is for every POSIX shell."""
    fields = each._asdict()
    fields |= {"last_seen": instant(each.last_seen), "first_seen": instant(each.first_seen)}
    pair = {key: fields.pop(key) for key in ("org", "flow_id", "flow_name", "old_name", "new_name", "confidence")}
    return {**pair, "evidence": fields, "command": shlex.join(_command(each, config_file))}


def _text(each: Suggestion, config_file: Path) -> str:
    """The suggestion for people. Names are quoted as in the command, so that every character shows."""
    flow = (
        _quoted(each.flow_id)
        if each.flow_name is None
        else f"{printable(each.flow_name)} ({_quoted(each.flow_id)})"
    )
    certainty = "clear" if each.confidence >= _CLEAR else "likely" if each.confidence >= _LIKELY else "possible"
    unit = "month" if each.granularity == "monthly" else "day"
    return "\n".join(
        (
            f"{_quoted(each.old_name)} -> {_quoted(each.new_name)}",
            f"  flow        {flow}",
            f"  confidence  {each.confidence:.2f} ({certainty})",
            (
                f"  last seen   {each.last_seen:%Y-%m-%d %H:%M} UTC, in {each.days_before} {unit}s,"
                f" {each.mean_before:,.1f} a {unit}"
            ),
            (
                f"  first seen  {each.first_seen:%Y-%m-%d %H:%M} UTC, in {each.days_after} {unit}s,"
                f" {each.mean_after:,.1f} a {unit}"
            ),
            f"  to add it   {' '.join(map(_quoted, _command(each, config_file)))}",
        )
    )


def _command(each: Suggestion, config_file: Path) -> list[str]:
    """The command that adds the alias; what begins with a dash is an operand or a value, never an option."""
    named = config_file != CONFIG_FILE and not os.environ.get(CONFIG_VARIABLE)
    config = [f"--config={config_file}"] if named else []
    operands = ["--", each.old_name, each.new_name]
    return ["flow-outcomes", "alias", "add", *config, f"--org={each.org}", f"--flow={each.flow_id}", *operands]


def _quoted(text: str) -> str:
    """A shell word that a terminal can show: other characters are escaped, as bash, zsh and ksh read them."""
    if text.isprintable():
        return shlex.quote(text)
    special = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    shown = (special.get(each) or (each if each.isprintable() else _bytes(each)) for each in text)
    return f"$'{''.join(shown)}'"


def _bytes(character: str) -> str:
    return "".join(f"\\{byte:03o}" for byte in character.encode())

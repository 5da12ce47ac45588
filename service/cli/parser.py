"""Every command with its arguments; imports nothing that is slow to import.

``parse`` sets ``command`` to the name of the command's module in ``service.cli``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from service.cli.argument_parser import DASHES, ArgumentParser, Commands, suggestion
from service.cli.text_encoding import path

COMMANDS = (
    "demo",
    "init",
    "config",
    "run",
    "backfill",
    "trigger",
    "status",
    "check",
    "plan",
    "alias",
    "rejected",
    "export",
    "fdw",
    "prune",
    "migrate",
    "simulate",
    "completion",
)
GRANULARITIES = ("auto", "hourly", "daily", "monthly")
MEASURES = ("outcomes", "executions", "milestones")
SHELLS = ("bash", "zsh", "tcsh")
REJECTED_LIMIT = 50
CONFIG_VARIABLE = "FLOW_OUTCOMES_CONFIG"
CONFIG_FILE = Path("flow-outcomes.yaml")
"""The configuration's file where neither ``--config`` nor the variable names one."""
_LIMIT_MAX = 1_000_000
_PORT_MAX, _PORT_DIGITS = 65_535, 5


class _Version(argparse.Action):
    """Prints the installed version; reads the package's metadata only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            installed = version("flow-outcomes")
        except PackageNotFoundError:  # a checkout that is not installed
            installed = "0+unknown"
        print(f"flow-outcomes {installed}")
        parser.exit()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Raises:
        SystemExit: after ``--version``, ``--help`` or a usage error.
    """
    parser = build_parser(declare_simulator=argv[:1] == ["simulate"])
    parsed, unknown = parser.parse_known_args(argv)
    if unknown:
        command = parser
        for each in argv:
            command = command.commands().get(each, command)
        known = suggestion(unknown[0].partition("=")[0], command.options())
        shown = unknown[0].replace(DASHES, "--")
        parser.error(f"unknown argument {shown!r}{known and f'; {known}'}")
    if "config" in parsed:
        parsed.config = parsed.config or _find_configuration(parser)
    return parsed


def build_parser(*, declare_simulator: bool) -> ArgumentParser:
    """The parser of the command line; the simulator's own arguments are slow to declare."""
    parser = ArgumentParser(
        prog="flow-outcomes",
        description="Brings Genesys Cloud flow-outcome figures into PostgreSQL, complete and exact.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=ArgumentParser
    )
    for add_command in _COMMANDS:
        add_command(commands)
    _simulate(commands, declare_arguments=declare_simulator)
    return parser


def _find_configuration(parser: ArgumentParser) -> Path:
    """The configuration's file where ``--config`` is not given."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return path(named)
    if CONFIG_FILE.exists():
        return CONFIG_FILE
    return parser.error(
        f"--config is required: {CONFIG_VARIABLE} is not set, and there is no {CONFIG_FILE} in this folder;"
        " 'flow-outcomes init' writes one"
    )


def _add(
    commands: Commands[Any], name: str, text: str, *, example: str, config: bool = True, command: str | None = None
) -> argparse.ArgumentParser:
    """Add a command with its help and an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command or name)
    if config:
        help_text = f"the configuration file; default ${CONFIG_VARIABLE}, then ./{CONFIG_FILE}"
        parser.add_argument("--config", type=path, metavar="FILE", help=help_text)
        verbosity = parser.add_mutually_exclusive_group()
        verbosity.add_argument("-q", "--quiet", action="store_true", help="log errors only")
        verbosity.add_argument("-v", "--verbose", action="store_true", help="log everything, also of libraries")
    return parser


def _demo(commands: Commands[Any]) -> None:
    text = "run the whole program with nothing to set up"
    parser = _add(commands, "demo", text, example="flow-outcomes demo", config=False)
    parser.add_argument("--port", type=_port, help="port of the page; default 8080, or a free one")
    parser.add_argument("--once", action="store_true", help="exit after the first full catch-up")


def _init(commands: Commands[Any]) -> None:
    text = "write a commented configuration to start from"
    parser = _add(commands, "init", text, example="flow-outcomes init --embedded", config=False)
    parser.add_argument(
        "file", type=path, nargs="?", metavar="FILE", help=f"default ${CONFIG_VARIABLE}, then ./{CONFIG_FILE}"
    )
    parser.add_argument("--embedded", action="store_true", help="store the figures in an embedded PostgreSQL")


def _config(commands: Commands[Any]) -> None:
    text = "check, show or describe the configuration, without a database"
    actions = commands.add_parser("config", help=text, description=text).add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="action"
    )
    text = "report every fault of the configuration"
    validate = _add(actions, "validate", text, example="flow-outcomes config validate", command="config")
    text = "print every key with its value, secrets hidden"
    show = _add(actions, "show", text, example="flow-outcomes config show", command="config")
    text = "print the JSON Schema of the configuration, for editors"
    example = "flow-outcomes config schema > flow-outcomes.schema.json"
    schema = _add(actions, "schema", text, example=example, command="config", config=False)
    for parser in (validate, show, schema):
        _json(parser)


def _run(commands: Commands[Any]) -> None:
    parser = _add(commands, "run", "run the daemon", example="flow-outcomes run --config /etc/flow-outcomes.yaml")
    parser.add_argument("--once", action="store_true", help="run every due window now, then exit")


def _backfill(commands: Commands[Any]) -> None:
    parser = _add(
        commands,
        "backfill",
        "extract a span, here or in the daemon that holds the org",
        example="flow-outcomes backfill --config flow-outcomes.yaml --org acme --from 2024-01-01 --to 2024-04-01",
    )
    parser.add_argument("--org", required=True, help="name of the org")
    parser.add_argument("--from", required=True, dest="start", metavar="DATE", help="first day")
    parser.add_argument("--to", required=True, dest="end", metavar="DATE", help="day after the last day")
    parser.add_argument("--granularity", default="auto", choices=GRANULARITIES, help="default: auto")
    parser.add_argument("--measure", choices=MEASURES, help="default: each that a job of the org has")
    _no_progress(parser)


def _trigger(commands: Commands[Any]) -> None:
    text = "run what is due now, here or in the daemon that holds the org"
    parser = _add(commands, "trigger", text, example="flow-outcomes trigger --org acme")
    parser.add_argument("--org", help="only this org; default: all orgs")
    _no_progress(parser)


def _no_progress(parser: argparse.ArgumentParser) -> None:
    _json(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def _status(commands: Commands[Any]) -> None:
    text = "show what is stored, what is missing and why"
    parser = _add(commands, "status", text, example="flow-outcomes status --config /etc/flow-outcomes.yaml --json")
    _json(parser)


def _check(commands: Commands[Any]) -> None:
    text = "check configuration, database, credentials and permissions"
    _json(_add(commands, "check", text, example="flow-outcomes check --config /etc/flow-outcomes.yaml"))


def _plan(commands: Commands[Any]) -> None:
    text = "dry run: show what would be requested now, and how long it would take"
    parser = _add(commands, "plan", text, example="flow-outcomes plan --config /etc/flow-outcomes.yaml")
    _json(parser)


def _alias(commands: Commands[Any]) -> None:
    text = "map reported outcome names to the names to show, for all flows or one"
    actions = commands.add_parser("alias", help=text, description=text).add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="action"
    )
    example = "flow-outcomes alias {} --config flow-outcomes.yaml --org acme"
    text = "show an outcome under a new name, also in stored figures"
    add = _add(actions, "add", text, example=f"{example.format('add')} Paid Settled", command="alias")
    text = "remove an alias and restore the old name"
    remove = _add(actions, "remove", text, example=f"{example.format('remove')} Paid", command="alias")
    text = "list the org's aliases"
    entries = _add(actions, "list", text, example=example.format("list"), command="alias")
    text = "suggest aliases: pairs of names that look like one outcome before and after a rename"
    suggest = _add(actions, "suggest", text, example=example.format("suggest"), command="alias_suggest")
    for parser in (add, remove, entries, suggest):
        parser.add_argument("--org", required=True, help="name of the org")
    for parser in (add, remove):
        parser.add_argument("--flow", metavar="ID", help="only for this flow; overrides the alias for all flows")
        parser.add_argument("old", metavar="OLD", help="name that the API reports")
    add.add_argument("new", metavar="NEW", help="name to show instead")
    remove.add_argument("new", metavar="NEW", nargs="?", help="remove the alias only if it has this new name")
    entries.add_argument("--flow", metavar="ID", help="aliases that apply to this flow, with those for all flows")
    suggest.add_argument("--flow", metavar="ID", help="only in this flow")
    for parser in (add, remove, entries, suggest):
        _json(parser)


def _rejected(commands: Commands[Any]) -> None:
    parser = _add(
        commands,
        "rejected",
        "list rejected entries with the reason, newest first",
        example="flow-outcomes rejected --config flow-outcomes.yaml --org acme --limit 10",
    )
    parser.add_argument("--org", help="only this org")
    parser.add_argument(
        "--limit", type=_limit, default=REJECTED_LIMIT, metavar="N", help=f"at most N; default {REJECTED_LIMIT}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document with complete entries")


def _export(commands: Commands[Any]) -> None:
    parser = _add(
        commands,
        "export",
        "bring the warehouse up to date, or write plain Parquet files",
        example="flow-outcomes export --config flow-outcomes.yaml",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--full", action="store_true", help="write every month, not only what changed")
    kind.add_argument(
        "--parquet", type=path, metavar="DIR", help="write plain Parquet files into a new or empty folder instead"
    )


def _fdw(commands: Commands[Any]) -> None:
    text = "print the SQL with which one PostgreSQL reads several installations"
    example = "flow-outcomes fdw --config north.yaml --config south.yaml > reports.sql"
    parser = _add(commands, "fdw", text, example=example, config=False)
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        dest="configs",
        type=path,
        metavar="FILE",
        help="a configuration, once for each installation",
    )


def _prune(commands: Commands[Any]) -> None:
    text = "remove old months from the database, or show what would be removed"
    example = "flow-outcomes prune --before 2024-01-01 --keep-monthly --yes"
    parser = _add(commands, "prune", text, example=example)
    parser.add_argument(
        "--before", required=True, metavar="DATE", help="remove the months (UTC) that end on or before this day"
    )
    parser.add_argument("--keep-monthly", action="store_true", help="keep the monthly figures")
    parser.add_argument("--yes", action="store_true", help="remove them; default: only show them")
    _json(parser)


def _migrate(commands: Commands[Any]) -> None:
    text = "bring the database schema up to date"
    _json(_add(commands, "migrate", text, example="flow-outcomes migrate --config flow-outcomes.yaml"))


def _completion(commands: Commands[Any]) -> None:
    text = "print a script that completes commands and options in a shell"
    example = "flow-outcomes completion bash > /etc/bash_completion.d/flow-outcomes"
    parser = _add(commands, "completion", text, example=example, config=False)
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def _simulate(commands: Commands[Any], *, declare_arguments: bool) -> None:
    """The simulator declares its own arguments; they are needed only where it is the command."""
    text = "run the simulated Genesys Cloud alone, with switches for its faults"
    parser = _add(commands, "simulate", text, example="flow-outcomes simulate --port 9000 --seed 7", config=False)
    if declare_arguments:
        from service.simulator.command import add_arguments

        add_arguments(parser)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


_COMMANDS = (
    _demo,
    _init,
    _config,
    _run,
    _backfill,
    _trigger,
    _status,
    _check,
    _plan,
    _alias,
    _rejected,
    _export,
    _fdw,
    _prune,
    _migrate,
    _completion,
)


def _port(text: str) -> int:
    """A port number; 0 is any free one."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS else -1
    if not 0 <= number <= _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: use a whole number from 0 to {_PORT_MAX}")
    return number


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return min(int(text), _LIMIT_MAX)

"""What several commands have in common: how they are declared, and where their logs go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from service.config import Config, load_config
from service.telemetry import logs

_PORT_MAX, _PORT_DIGITS = 65_535, 5


def declare(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    example: str,
    config: bool = True,
) -> argparse.ArgumentParser:
    """A command with its help and an example."""
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(command=run)
    if config:
        command.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration")
    return command


def port(text: str) -> int:
    """The number of a port; 0 is any free one."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS else -1
    if not 0 <= number <= _PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a whole number from 0 to {_PORT_MAX}")
    return number


def read_config(path: Path) -> Config:
    """The configuration; the database's secrets are hidden from now on.

    Raises:
        ConfigError: it cannot be used.
    """
    config = load_config(path)
    for secret in (*config.database.secrets, os.environ.get("PGPASSWORD", "")):
        logs.register_secret(secret)
    return config


def configured(arguments: argparse.Namespace, *, logs_to: Literal["stdout", "stderr"] = "stderr") -> Config:
    """The configuration, with logging as it says; the logs of a command do not mix with its result.

    Raises:
        ConfigError: it cannot be used.
    """
    config = read_config(arguments.config)
    stream = sys.stdout if logs_to == "stdout" else sys.stderr
    logs.configure(config.log.level, config.log.format, stream)
    return config

"""``flow-outcomes run``: the daemon, or one run over everything that is due."""

from __future__ import annotations

import argparse
import asyncio

from service.cli.arguments import configured, declare, read_config
from service.runtime import run_once
from service.telemetry import Reporter


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands, "run", run, "run the daemon", example="flow-outcomes run --config /etc/flow-outcomes.yaml"
    )
    command.add_argument("--once", action="store_true", help="run every due window now, and exit")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    config = configured(arguments, logs_to="stdout")
    if arguments.once:
        return asyncio.run(run_once(config, Reporter().emit))
    from service.runtime import Daemon

    daemon = Daemon(config, lambda: read_config(arguments.config), Reporter())
    asyncio.run(daemon.serve())
    return 0

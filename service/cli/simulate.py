"""``flow-outcomes simulate``: the simulated Genesys Cloud alone."""

from __future__ import annotations

import argparse
import asyncio
import sys

from service.cli.arguments import declare
from service.simulator import command as simulator
from service.telemetry import logs


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    simulator.add_arguments(
        declare(
            commands,
            "simulate",
            run,
            "the simulated Genesys Cloud alone, with switches for its faults",
            example="flow-outcomes simulate --port 9000 --seed 7",
            config=False,
        )
    )


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    logs.configure("info", "json", sys.stderr)
    return asyncio.run(simulator.run(arguments))

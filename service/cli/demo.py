"""``flow-outcomes demo``: the whole thing with nothing to set up."""

from __future__ import annotations

import argparse
import asyncio

from service.cli.arguments import declare, port


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    command = declare(
        commands, "demo", run, "the whole thing with nothing to set up", example="flow-outcomes demo", config=False
    )
    command.add_argument("--port", type=port, default=None, help="of the page; 8080, or a free one if it is taken")
    command.add_argument("--once", action="store_true", help="end after the first full catch-up")


def run(arguments: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from service.runtime.demo import demo

    return asyncio.run(demo(port=arguments.port, once=arguments.once))

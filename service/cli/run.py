"""``flow-outcomes run``: the daemon, or with ``--once`` one run of everything that is due."""

from __future__ import annotations

import argparse
import asyncio
from functools import partial

from service.cli import configuration
from service.runtime import run_once
from service.telemetry import Reporter


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    config = configuration.load(arguments, logs_to="stdout", traced=True)
    if arguments.once:
        return asyncio.run(run_once(config, Reporter().emit))
    from service.runtime import Daemon

    read_config = partial(configuration.read, arguments)
    asyncio.run(Daemon(config, read_config, Reporter(), config_file=arguments.config).serve())
    return 0

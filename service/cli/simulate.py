"""``flow-outcomes simulate``: the simulated Genesys Cloud alone."""

from __future__ import annotations

import argparse
import asyncio
import sys

from service.simulator import runner
from service.telemetry import logs


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    logs.configure("info", "json", sys.stderr)
    return asyncio.run(runner.run(arguments))

"""``flow-outcomes demo``: the whole program with nothing to set up."""

from __future__ import annotations

import argparse
import asyncio

from service.runtime.demo import demo


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    return asyncio.run(demo(port=arguments.port, once=arguments.once))

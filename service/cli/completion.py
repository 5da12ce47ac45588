"""``flow-outcomes completion``: prints a shell's completion script."""

from __future__ import annotations

import argparse

import shtab

from service.cli.parser import build_parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    print(shtab.complete(build_parser(declare_simulator=True), shell=arguments.shell))
    return 0

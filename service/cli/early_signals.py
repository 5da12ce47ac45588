"""Signals before the daemon has installed its handlers, and after it has removed them.

This module imports the standard library alone: importing the rest of the program takes most of a start.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STOP = (signal.SIGTERM, signal.SIGINT)
_RELOAD_AND_RUN_NOW = (signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def handle_early_signals() -> Iterator[None]:
    """Handle signals around the whole process, wherever the daemon's own handlers are not installed.

    SIGTERM and SIGINT end the process with exit code 0, since nothing is in flight. SIGHUP and SIGUSR1 are
    ignored. After the context all four are ignored: their default action would kill the interpreter as it exits.
    """
    for number in _STOP:
        signal.signal(number, _exit)
    for number in _RELOAD_AND_RUN_NOW:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in (*_STOP, *_RELOAD_AND_RUN_NOW):
            signal.signal(number, signal.SIG_IGN)


def _exit(*_: object) -> None:
    if logs := sys.modules.get("service.telemetry.logs"):
        logs.drain()
    os._exit(0)

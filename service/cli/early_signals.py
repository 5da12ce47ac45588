"""Signals of commands, and of the daemon before and after its own handlers are installed.

This module imports the standard library alone: importing the rest of the program takes most of a start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_TIMEOUT = 0.8
"""Seconds in which a command that gets SIGTERM may release what it holds."""
TERMINATED = 128 + signal.SIGTERM  # as a shell reports it

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


@contextmanager
def end_on_sigterm() -> Iterator[Callable[[], bool]]:
    """Within the context, SIGTERM interrupts the command as SIGINT does, also in a container's first process.

    The kernel ignores SIGTERM there where nothing handles it. A command that has not ended in time is ended at
    once: what it has not stored it extracts the next time.

    Yields a function that says whether SIGTERM came.
    """
    received = False
    if threading.current_thread() is not threading.main_thread():  # as in tests; only the main thread gets signals
        yield lambda: False
        return

    def interrupt(*_: object) -> None:
        nonlocal received
        if not received:
            received = True
            signal.signal(signal.SIGALRM, lambda *_: _exit(code=TERMINATED))
            signal.setitimer(signal.ITIMER_REAL, STOP_TIMEOUT)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield lambda: received
    finally:
        if not received:
            signal.signal(signal.SIGTERM, before)


def _exit(*_: object, code: int = 0) -> None:
    if logs := sys.modules.get("service.telemetry.logs"):
        logs.drain()
    os._exit(code)

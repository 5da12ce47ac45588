"""Signals while nobody hears them: before the daemon does, and after its end.

It imports next to nothing, so that it holds while everything else is imported, which takes most of a start.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = (signal.SIGTERM, signal.SIGINT)
_ASKING = (signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def handle_early_signals() -> Iterator[None]:
    """Around all of a process's work: while signals are not heard yet, or no more, each is answered all the same.

    SIGTERM and SIGINT end it at once, in order since nothing is in flight; the others are ignored. Past the
    context all are: the interpreter's own end would let them kill.
    """
    for number in _ENDING:
        signal.signal(number, lambda *_: os._exit(0))
    for number in _ASKING:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number in (*_ENDING, *_ASKING):
            signal.signal(number, signal.SIG_IGN)

"""Signals to events: safe at any moment, as many as come."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ENDING = (signal.SIGTERM, signal.SIGINT)
_ASKING = (signal.SIGHUP, signal.SIGUSR1)


@dataclass
class Signals:
    """What was asked for from outside; whoever acts on a request clears it first.

    Attributes:
        reload: SIGHUP.
        run_now: SIGUSR1.
        stop: SIGTERM or SIGINT.
        stop_at_once: another of these.
        any: one of them came.
    """

    reload: asyncio.Event = field(default_factory=asyncio.Event)
    run_now: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stop_at_once: asyncio.Event = field(default_factory=asyncio.Event)
    any: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, event: asyncio.Event) -> None:
        """Note a request, as its signal does."""
        if event is self.stop and self.stop.is_set():
            self.stop_at_once.set()
        event.set()
        self.any.set()

    @contextmanager
    def heard(self) -> Iterator[Signals]:
        """While the context lasts, signals are noted here and do nothing else; then they are as they were."""
        loop = asyncio.get_running_loop()
        events = {
            signal.SIGHUP: self.reload,
            signal.SIGUSR1: self.run_now,
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
        }
        before = {number: signal.getsignal(number) for number in events}
        for number, event in events.items():
            loop.add_signal_handler(number, self.ask, event)
        try:
            yield self
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, events)  # asyncio leaves the default, which kills
            for number in events:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, events)


@contextmanager
def unheard() -> Iterator[None]:
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

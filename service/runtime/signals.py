"""Signals to events: safe at any moment, as many as come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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
    def installed(self) -> Iterator[Signals]:
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

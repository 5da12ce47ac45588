"""Signals as events of the event loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Signals:
    """The signals received so far; the consumer of an event clears it before acting on it.

    Attributes:
        reload: SIGHUP.
        run_now: SIGUSR1.
        stop: SIGTERM or SIGINT.
        stop_at_once: a second SIGTERM or SIGINT.
        any: any of these.
    """

    reload: asyncio.Event = field(default_factory=asyncio.Event)
    run_now: asyncio.Event = field(default_factory=asyncio.Event)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stop_at_once: asyncio.Event = field(default_factory=asyncio.Event)
    any: asyncio.Event = field(default_factory=asyncio.Event)

    def deliver(self, event: asyncio.Event) -> None:
        """Set an event of this object, as its signal does."""
        if event is self.stop and self.stop.is_set():
            self.stop_at_once.set()
        event.set()
        self.any.set()

    @contextmanager
    def installed(self) -> Iterator[Signals]:
        """Handle the signals within the context, then restore the former handlers."""
        loop = asyncio.get_running_loop()
        events = {
            signal.SIGHUP: self.reload,
            signal.SIGUSR1: self.run_now,
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
        }
        before = {number: signal.getsignal(number) for number in events}
        for number, event in events.items():
            loop.add_signal_handler(number, self.deliver, event)
        try:
            yield self
        finally:
            # remove_signal_handler sets the default action, which kills: block the signals until ours are back
            signal.pthread_sigmask(signal.SIG_BLOCK, events)
            for number in events:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, events)

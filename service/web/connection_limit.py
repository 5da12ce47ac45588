"""How many connections there may be, so that clients of the port never use the descriptors that the work needs."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any, Protocol

CONNECTIONS_MAX = 512
DESCRIPTOR_SHARE = 4
"""One descriptor in so many may belong to a connection."""
DESCRIPTORS_MAX = 65_536
"""To which the soft limit is raised; systems without a hard limit reject an unbounded one."""
RESPONSE_GRACE = 10.0
"""Seconds in which a response in progress does not give way to a new connection."""
ACCEPT_MESSAGE_INTERVAL = 60.0
"""Seconds between two messages that no descriptor is left for a new connection."""

_ACCEPT_MESSAGE = "socket.accept() out of system resource"


class Limited(Protocol):
    """A connection as the limit sees it."""

    @property
    def waiting_since(self) -> float:
        """When its last request was complete; when it was opened if none was."""

    @property
    def responding(self) -> bool:
        """Whether it has a complete request without a complete response."""

    def abort(self) -> None:
        """Close it at once."""


class ConnectionLimit:
    """Bounds the number of open connections.

    Args:
        maximum: how many there may be.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._open: dict[Limited, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Limited, now: float) -> None:
        """Count a new connection; if there are too many, one is aborted.

        That is the one that has waited longest without a complete request. Where all have responses in progress it
        is the oldest of these, and the new one if none is older than ``RESPONSE_GRACE``.
        """
        self._open[connection] = None
        if len(self._open) <= self._maximum:
            return
        others = [each for each in self._open if each is not connection]
        evictable = [each for each in others if not each.responding or now - each.waiting_since > RESPONSE_GRACE]
        evicted = min(evictable, key=lambda each: (each.responding, each.waiting_since), default=connection)
        self.remove(evicted)
        evicted.abort()

    def remove(self, connection: Limited) -> None:
        """No longer count a connection."""
        self._open.pop(connection, None)


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connections_max() -> int:
    """The number of connections that the limit of descriptors leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        CONNECTIONS_MAX
        if soft == resource.RLIM_INFINITY
        else max(1, min(CONNECTIONS_MAX, soft // DESCRIPTOR_SHARE))
    )


class AcceptErrors:
    """The event loop's exception handler: reports that no descriptor is left at most once a minute.

    asyncio reports it once for each connection that waits, with a traceback, every second.

    Args:
        before: the handler for everything else; None for asyncio's own.
    """

    def __init__(
        self, before: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
    ) -> None:
        self._before = before
        self._last: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error of the event loop."""
        if context.get("message") == _ACCEPT_MESSAGE:
            now = time.monotonic()
            if self._last is not None and now - self._last < ACCEPT_MESSAGE_INTERVAL:
                return
            self._last = now
        if self._before is not None:
            self._before(loop, context)
        else:
            loop.default_exception_handler(context)

"""How many connections there may be, and which one gives way to a new one."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from dataclasses import dataclass

import pytest

from service.web.connection_limit import AcceptErrors, ConnectionLimit, connections_max, raise_descriptor_limit


@dataclass(eq=False)
class Fake:
    """A connection."""

    waiting_since: float
    responding: bool = False
    aborted: bool = False

    def abort(self) -> None:
        self.aborted = True


def filled(*connections: Fake) -> ConnectionLimit:
    limit = ConnectionLimit(len(connections))
    for each in connections:
        limit.add(each, 0.0)
    return limit


def test_the_one_that_has_waited_longest_gives_way() -> None:
    """Of the connections without a complete request, the one that has waited longest is aborted."""
    connections = [Fake(5.0), Fake(2.0), Fake(1.0, responding=True), Fake(3.0)]
    limit, new = filled(*connections), Fake(6.0)
    limit.add(new, 6.0)
    assert [each.aborted for each in [*connections, new]] == [False, True, False, False, False]
    assert len(limit) == 4


def test_a_response_in_progress_does_not_give_way() -> None:
    """Where all have responses in progress, the new one is aborted; after ten seconds the oldest response is."""
    connections = [Fake(2.0, responding=True), Fake(1.0, responding=True)]
    limit, new = filled(*connections), Fake(9.0)
    limit.add(new, 9.0)
    assert [each.aborted for each in [*connections, new]] == [False, False, True]
    limit.add(Fake(12.0), 12.0)
    assert [each.aborted for each in connections] == [False, True]


def test_a_closed_connection_makes_room() -> None:
    """A connection that has ended does not count."""
    connections = [Fake(1.0), Fake(2.0)]
    limit = filled(*connections)
    limit.remove(connections[0])
    limit.add(Fake(3.0), 3.0)
    assert not connections[1].aborted


@pytest.mark.parametrize(
    ("soft", "maximum"), [(64, 16), (1024, 256), (4096, 512), (2, 1), (resource.RLIM_INFINITY, 512)]
)
def test_a_quarter_of_the_descriptors(monkeypatch: pytest.MonkeyPatch, soft: int, maximum: int) -> None:
    """At most 512 connections, and no more than a quarter of the allowed descriptors."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert connections_max() == maximum


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((256, 1024), (1024, 1024)),
        ((256, resource.RLIM_INFINITY), (65_536, resource.RLIM_INFINITY)),
        ((9, 9), None),
    ],
)
def test_the_soft_limit_is_raised(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], after: tuple[int, int] | None
) -> None:
    """The soft limit becomes the hard one, or a large number where there is none."""
    changed: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changed.append(limits))
    raise_descriptor_limit()
    assert changed == ([after] if after else [])


async def test_asyncio_s_message_comes_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """That no descriptor is left is logged once a minute, any other error each time."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    handler, loop = AcceptErrors(), asyncio.get_running_loop()
    with caplog.at_level(logging.ERROR, "asyncio"):
        for now in (0.0, 0.1, 59.0, 60.5):  # noqa: B007 - the clock
            handler(loop, {"message": "socket.accept() out of system resource"})
        handler(loop, {"message": "other"})
        handler(loop, {"message": "other"})
    assert len(caplog.records) == 4


async def test_other_errors_go_to_the_former_handler() -> None:
    """A handler that was set before receives what is not held back."""
    received: list[object] = []
    AcceptErrors(lambda _, context: received.append(context["message"]))(
        asyncio.get_running_loop(), {"message": "other"}
    )
    assert received == ["other"]

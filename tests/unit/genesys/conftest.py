"""An event loop with virtual time: a sleep of an hour returns at once, and every run is the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from tests.support.client_harness import Org, WithOrg
from tests.support.http_double import aioresponses

T = TypeVar("T")
InVirtualTime = Callable[..., Any]


class _Selector(selectors.SelectSelector):
    """Waits by advancing the clock, with an overshoot, as a real machine has."""

    def __init__(self, overshoot: float) -> None:
        super().__init__()
        self.now = 1000.0
        self._overshoot = overshoot

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("every task waits without a timeout: deadlock")
        self.now += 1e-7 if timeout <= 0 else timeout + self._overshoot
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, overshoot: float) -> None:
        self._virtual = _Selector(overshoot)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


@pytest.fixture(scope="session")
def in_virtual_time() -> InVirtualTime:
    """Runs a coroutine in a loop with virtual time; ``overshoot`` seconds are added to each sleep."""

    def run(main: Coroutine[Any, Any, T], *, overshoot: float = 0.0) -> T:
        with asyncio.Runner(loop_factory=lambda: _Loop(overshoot)) as runner:
            return runner.run(main)

    return run


@pytest.fixture
def with_org(in_virtual_time: InVirtualTime) -> WithOrg:
    """Runs a coroutine function on an org in virtual time, then closes the client."""

    def run(main: Callable[[Org], Coroutine[Any, Any, None]]) -> None:
        async def guarded() -> None:
            with aioresponses() as server:
                org = Org(server)
                try:
                    await main(org)
                finally:
                    await org.client.close()

        in_virtual_time(guarded())

    return run

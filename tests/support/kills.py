"""Kills programs at every stage, one after the other, on one database."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial

from service.postgres.migrate import pending_migrations
from service.simulator import Simulator
from tests.support.fault_harness import FaultHarness
from tests.support.program import Running

TIMEOUT = 60.0
STAGES = ("starting", "migrating", "at work", "ending")


class Kills:
    """Kills at instants drawn from a seed.

    Attributes:
        killed: how many programs were killed, by stage.
    """

    def __init__(self, site: FaultHarness, simulator: Simulator, seed: int) -> None:
        self.killed: Counter[str] = Counter()
        self._site = site
        self._simulator = simulator
        self._chance = random.Random(seed)  # noqa: S311 - not for cryptography
        self._connects_after = self._requests_after = 0.0

    async def run(self, kills: int) -> None:
        """Kill ``kills`` programs: a sixth while migrating, of the others a third while ending."""
        await self._measure()
        while self.killed.total() < kills // 6:
            await self._while_migrating()
        actions = (partial(self._anywhere, "run", "--once"), partial(self._anywhere, "run"), self._while_ending)
        while self.killed.total() < kills:
            for action in actions[: kills - self.killed.total()]:
                await action()

    async def _measure(self) -> None:
        """Measure how long a start takes, up to the first connection and the first request."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = await self._site.program.start("run", "--once")
        await _until(lambda: self._site.proxy.opened > 0)
        self._connects_after = loop.time() - began
        await _until(lambda: bool(self._simulator.arrivals))
        self._requests_after = loop.time() - began
        await self._kill(running, "at work")

    async def _while_migrating(self) -> None:
        if not pending_migrations(self._site.dsn):
            self._site.run("DROP SCHEMA flow_outcomes CASCADE")
        opened = self._site.proxy.opened
        running = await self._site.program.start("run", "--once")
        await _until(lambda: self._site.proxy.opened > opened)
        await asyncio.sleep(self._chance.uniform(0.0, 0.5 * self._connects_after))
        await self._kill(running, "migrating" if pending_migrations(self._site.dsn) else None)

    async def _anywhere(self, *arguments: str) -> None:
        running = await self._site.program.start(*arguments)
        working = asyncio.create_task(self._start_work(running))
        await asyncio.sleep(self._chance.uniform(0.0, 1.7 * self._requests_after))
        working.cancel()
        await self._kill(running, None)

    async def _while_ending(self) -> None:
        running = await self._site.program.start("run")
        await self._start_work(running)
        await _until(lambda: _has_logged(running, "cycle_started"))
        await asyncio.sleep(self._chance.uniform(0.0, 0.2))
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self._chance.uniform(0.0, 0.1))
        await self._kill(running, "ending")

    async def _start_work(self, running: Running) -> None:
        """Make a daemon extract every window again, since all may be stored already."""
        await _until(lambda: _has_logged(running, "daemon_started"))
        running.process.send_signal(signal.SIGUSR1)

    async def _kill(self, running: Running, stage: str | None) -> None:
        """Kill a program and count it if it was running; without ``stage``, the log shows the stage."""
        was_running = running.process.returncode is None
        running.kill()
        code = (await running.end()).code
        # asyncio returns 255 if the process ended just before the kill
        assert code in (-signal.SIGKILL, 0, 255), (code, running.out[-5:], running.err)
        if was_running and code == -signal.SIGKILL:
            self.killed[stage or _stage(running)] += 1


def _stage(running: Running) -> str:
    if _has_logged(running, "cycle_finished"):
        return "ending"
    if _has_logged(running, "cycle_started"):
        return "at work"
    return "acquiring" if running.out else "starting"


def _has_logged(running: Running, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in running.out)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)

"""Programs killed at every stage of their lives, one after the other, on one database."""

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
from tests.support.program import Running
from tests.support.site import Site

PATIENCE = 60.0
STAGES = ("starting", "migrating", "at work", "ending")


class Kills:
    """Kills at instants drawn from a seed.

    Attributes:
        met: how many programs were killed in which stage.
    """

    def __init__(self, site: Site, simulator: Simulator, seed: int) -> None:
        self.met: Counter[str] = Counter()
        self._site = site
        self._simulator = simulator
        self._chance = random.Random(seed)  # noqa: S311 - it keeps no secret
        self._to_link = self._to_request = 0.0

    async def run(self, kills: int) -> None:
        """Kill so many: a sixth of them while they migrate, the others anywhere, and every third as it ends."""
        await self._measure()
        while self.met.total() < kills // 6:
            await self._while_migrating()
        ways = (partial(self._anywhere, "run", "--once"), partial(self._anywhere, "run"), self._while_ending)
        while self.met.total() < kills:
            for way in ways[: kills - self.met.total()]:
                await way()

    async def _measure(self) -> None:
        """How long a start takes on this machine, up to the first connection and the first request."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = await self._site.program.start("run", "--once")
        await _until(lambda: self._site.proxy.opened > 0)
        self._to_link = loop.time() - began
        await _until(lambda: bool(self._simulator.arrivals))
        self._to_request = loop.time() - began
        await self._kill(running, "at work")

    async def _while_migrating(self) -> None:
        if not pending_migrations(self._site.dsn):
            self._site.run("DROP SCHEMA flow_outcomes CASCADE")
        opened = self._site.proxy.opened
        running = await self._site.program.start("run", "--once")
        await _until(lambda: self._site.proxy.opened > opened)
        await asyncio.sleep(self._chance.uniform(0.0, 0.5 * self._to_link))
        await self._kill(running, "migrating" if pending_migrations(self._site.dsn) else None)

    async def _anywhere(self, *arguments: str) -> None:
        running = await self._site.program.start(*arguments)
        working = asyncio.create_task(self._set_to_work(running))
        await asyncio.sleep(self._chance.uniform(0.0, 1.7 * self._to_request))
        working.cancel()
        await self._kill(running, None)

    async def _while_ending(self) -> None:
        running = await self._site.program.start("run")
        await self._set_to_work(running)
        await _until(lambda: _told(running, "cycle_started"))
        await asyncio.sleep(self._chance.uniform(0.0, 0.2))
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(self._chance.uniform(0.0, 0.1))
        await self._kill(running, "ending")

    async def _set_to_work(self, running: Running) -> None:
        """Have a daemon read every window again: it may find all of them stored."""
        await _until(lambda: _told(running, "daemon_started"))
        running.process.send_signal(signal.SIGUSR1)

    async def _kill(self, running: Running, stage: str | None) -> None:
        """Kill it, and count it where it still lived; where no stage is given, what it had told says which."""
        lived = running.process.returncode is None
        running.kill()
        code = (await running.end()).code
        # 255 is asyncio's for a process that ended just as it was to be killed: killing it read its exit code
        assert code in (-signal.SIGKILL, 0, 255), (code, running.out[-5:], running.err)
        if lived and code == -signal.SIGKILL:
            self.met[stage or _stage(running)] += 1


def _stage(running: Running) -> str:
    if _told(running, "cycle_finished"):
        return "ending"
    if _told(running, "cycle_started"):
        return "at work"
    return "taking up" if running.out else "starting"


def _told(running: Running, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in running.out)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.001)

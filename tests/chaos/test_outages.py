"""One daemon survives every kind of database outage, repeatedly, without leaking resources."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.test_chaos import ORG, SEED
from tests.faults.test_database import source
from tests.support.daemon import TIMEOUT, Daemon, Reader, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, FaultHarness

TIMES = int(os.environ.get("FLOW_OUTCOMES_CHAOS_OUTAGES", "50"))
READY_WITHIN = 10.0  # seconds after the database's return
AT_WORK_WITHIN = 20.0
SESSIONS = 6  # four of the pool, one of the lease manager, one of the status
MIB = 2**20


class Outages:
    """Every kind of outage, equally often.

    Attributes:
        fired: how often each kind happened.
        ready: the longest time until /readyz was ok after each kind, in seconds.
        at_work: the longest time until a window was stored, in seconds.
    """

    def __init__(self, site: FaultHarness, daemon: Daemon, seed: int) -> None:
        self.fired: Counter[str] = Counter()
        self.ready: dict[str, float] = {}
        self.at_work: dict[str, float] = {}
        self._chance = random.Random(seed)  # noqa: S311 - not for cryptography
        self._site = site
        self._daemon = daemon
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "stopped": self._stop,
            "crashed": self._crash,
            "backends terminated": self._terminate_backends,
            "stalled": self._stall,
            "reset": self._reset,
            "read only": self._read_only,
            "out of disk": self._fill_disk,
            "answer to a commit lost": self._lose_commit_answer,
        }

    async def round(self) -> None:
        """Cause each kind once, in random order."""
        kinds = list(self._kinds)
        self._chance.shuffle(kinds)
        for kind in kinds:
            await self._cause(kind)

    async def _cause(self, kind: str) -> None:
        """Cause an outage during a cycle and wait until windows are stored again."""
        daemon, loop = self._daemon, asyncio.get_running_loop()
        await self._work_until(lambda: daemon.count("cycle_started") > daemon.count("cycle_finished"), "cycle")
        await asyncio.sleep(self._chance.uniform(0.0, 0.3))
        await self._kinds[kind]()
        self.fired[kind] += 1
        back, stored = loop.time(), daemon.count("window_complete")
        await daemon.wait_until_ready(within=READY_WITHIN)
        self.ready[kind] = max(self.ready.get(kind, 0.0), loop.time() - back)
        await self._work_until(lambda: daemon.count("window_complete") > stored, "window stored", AT_WORK_WITHIN)
        self.at_work[kind] = max(self.at_work.get(kind, 0.0), loop.time() - back)
        sessions = self._site.sessions()
        assert len(sessions) <= SESSIONS, (kind, sessions)

    async def _work_until(self, true: Callable[[], bool], what: str, within: float = TIMEOUT) -> None:
        """Request cycles until ``true`` returns True."""

        async def request_cycles() -> None:
            while True:
                self._daemon.send(signal.SIGUSR1)
                await asyncio.sleep(0.5)

        requesting = asyncio.create_task(request_cycles())
        try:
            await self._daemon.wait_until(true, what, within=within)
        finally:
            requesting.cancel()

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, 1.5))

    async def _stop(self) -> None:
        await asyncio.to_thread(self._site.server.stop)
        await self._pause()
        await asyncio.to_thread(self._site.start_server)

    async def _crash(self) -> None:
        await asyncio.to_thread(self._site.server.crash)
        await asyncio.to_thread(self._site.start_server)

    async def _terminate_backends(self) -> None:
        ended = self._site.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self._site.name}' AND application_name LIKE 'flow-outcomes %'"
        )
        assert ended

    async def _stall(self) -> None:
        lost = self._daemon.count("org_lost")
        self._site.proxy.stall()
        await self._daemon.wait_for_event("org_lost", lost + 1, within=20)
        self._site.proxy.heal()

    async def _reset(self) -> None:
        assert self._site.proxy.links
        self._site.proxy.reset()

    async def _read_only(self) -> None:
        self._set("ALTER SYSTEM SET default_transaction_read_only = on")
        await self._daemon.wait_until_unready()
        self._set("ALTER SYSTEM RESET ALL")

    def _set(self, statement: str) -> None:
        self._site.server.run(statement)
        self._site.server.run("SELECT pg_reload_conf()")

    async def _fill_disk(self) -> None:
        self._site.run(
            "CREATE FUNCTION public.reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'rejected' USING ERRCODE = '53100'; END $$"
        )
        self._site.run(
            "CREATE TRIGGER reject AFTER UPDATE ON flow_outcomes.extraction_window"
            " FOR EACH STATEMENT EXECUTE FUNCTION public.reject()"
        )
        away = self._daemon.count("database_unavailable")
        await self._work_until(lambda: self._daemon.count("database_unavailable") > away, "database_unavailable")
        self._site.run("DROP FUNCTION public.reject CASCADE")

    async def _lose_commit_answer(self) -> None:
        proxy, name = self._site.proxy, "answer to COMMIT lost"
        before = proxy.fired[name]
        proxy.commit_answers_to_lose = 1
        await self._work_until(lambda: proxy.fired[name] > before, "a lost answer to COMMIT")


def _resources(pid: int) -> tuple[int, int]:
    """Return a process's memory in bytes and its number of open descriptors."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize(
    "times",
    [pytest.param(1, marks=pytest.mark.faults), pytest.param(TIMES, marks=pytest.mark.chaos)],
)
async def test_repeated_outages(site: FaultHarness, times: int) -> None:
    """The daemon is ready again within ten seconds each time, and neither connections nor memory grow."""
    async with source(ORG) as simulator, Reader(lambda: site.dsn) as reader:
        site.configure(simulator, jobs={"daily": {**site.job, "lookback": f"P{DAYS}D"}})
        daemon = await Daemon.start(site.program)
        outages = Outages(site, daemon, SEED)
        await outages.round()
        memory, descriptors = _resources(daemon.pid)
        for _ in range(times - 1):
            await outages.round()
        await wait_until_complete(daemon, DAYS - 1)
        memory_after, descriptors_after = _resources(daemon.pid)
        seconds = {kind: f"{outages.ready[kind]:.1f} s, {outages.at_work[kind]:.1f} s" for kind in outages.ready}
        print(  # noqa: T201 - to repeat a run, and its result
            f"chaos: seed {SEED}, {times} of each; ready and at work again within {seconds};"
            f" {(memory_after - memory) / MIB:+.1f} MiB, {descriptors_after - descriptors:+d} descriptors"
        )
        assert set(outages.fired.values()) == {times}
        assert daemon.count("unexpected_error") == 0, daemon.tail()
        assert daemon.count("window_failed") == 0, daemon.tail()
        assert descriptors_after <= descriptors + 6
        assert memory_after <= memory + 10 * MIB
        assert_exact(site.program, simulator)
        assert reader.partial == []
        assert reader.reads > 20
        await daemon.end()
        assert site.sessions() == []

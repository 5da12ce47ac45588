"""Random faults from a seed, and the check that the result is exact.

The seed determines which faults happen and when. It does not determine what the program does at that moment, so a
seed repeats the course of a run, not each of its instants.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from service.simulator import Fault, Simulator
from tests.support.daemon import Daemon, Reader, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, FaultHarness

# Faults that change no figure: the window can be extracted afterwards.
API_FAULTS: dict[str, object] = {
    "slow": 0.3,
    "connection_reset": None,
    "redirect": None,
    "throttled": "1",
    "server_error": 503,
    "unauthorized": None,
    "hostile_error": 400,
    "cursor_expired": 410,
    "missing_token": None,
    "repeated_token": None,
    "missing_data": None,
    "outcomes_array": None,
    "not_json": None,
    "invalid_utf8": None,
    "truncated": "chunked",
    "drip": 0.3,
    "duplicate_different": None,
    "deep_json": 1000,
    "token_error": 500,
    "token_reset": None,
    "token_throttled": "1",
    "token_not_json": None,
}


class Chaos:
    """One run against one fault harness.

    Attributes:
        fired: how often each action was done and each fault fired, by name.
    """

    def __init__(self, seed: int, site: FaultHarness, simulator: Simulator) -> None:
        self.seed = seed
        self.fired: Counter[str] = Counter()
        self._chance = random.Random(seed)  # noqa: S311 - not for cryptography
        self._site = site
        self._simulator = simulator
        self._daemon: Daemon | None = None
        self._good = site.program.config.read_text()
        self._actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (12, self._api_fault),
            (4, self._kill),
            (2, self._stop),
            (3, self._reload),
            (2, self._bad_reload),
            (2, self._run_now),
            (2, self._pause),
            (3, self._terminate_backends),
            (2, self._reset_connections),
            (2, self._lose_commit_answer),
            (2, self._stall),
            (2, self._read_only),
            (1, self._restart_database),
            (1, self._crash_database),
            (1, self._revoke_tokens),
        ]

    async def run(self, seconds: float) -> None:
        """Run random actions for ``seconds``, then let the program recover, and check the result."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with Reader(lambda: self._site.dsn) as reader:
            self._simulator.switch("server_error", Fault(503, times=2))  # fires in every run
            await self._start()
            weights = [weight for weight, _ in self._actions]
            while loop.time() < until:
                (_, action), *_ = self._chance.choices(self._actions, weights)
                self.fired[action.__name__.strip("_")] += 1
                await action()
                await asyncio.sleep(self._chance.uniform(0.0, 0.8))
            await self._settle()
            assert reader.reads > seconds
            assert reader.partial == [], self.summary()
        assert_exact(self._site.program, self._simulator)
        restated = self._site.program.rows("SELECT count(*) AS n FROM flow_outcomes.restatement")
        assert restated == [{"n": 0}], self.summary()
        staged = self._site.program.rows("SELECT count(*) AS n FROM flow_outcomes.staging")
        assert staged == [{"n": 0}], self.summary()
        self.fired += Counter({f"api {name}": count for name, count in self._simulator.fired.items()})
        self.fired += Counter({f"network {name}": count for name, count in self._site.proxy.fired.items()})

    def summary(self) -> str:
        """Return the seed and what fired."""
        return f"seed {self.seed}: {dict(sorted(self.fired.items()))}"

    async def _settle(self) -> None:
        for name in API_FAULTS:
            self._simulator.switch(name, None)
        self._site.proxy.commit_answers_to_lose = 0
        self._site.proxy.heal()
        daemon = await self._running_daemon()
        daemon.send(signal.SIGUSR1)
        await wait_until_complete(daemon, DAYS - 1, within=90)
        took = await daemon.end()
        assert took < 20, self.summary()

    async def _start(self) -> None:
        self._daemon = await Daemon.start(self._site.program)

    async def _running_daemon(self) -> Daemon:
        daemon = self._daemon
        assert daemon is not None
        assert daemon.running.process.returncode is None, (self.summary(), daemon.tail())
        assert daemon.count("unexpected_error") == 0, (self.summary(), daemon.tail())
        return daemon

    async def _api_fault(self) -> None:
        name = self._chance.choice(sorted(API_FAULTS))
        times = self._chance.randint(1, 3)
        self._simulator.switch(name, Fault(value=API_FAULTS[name], times=times, probability=0.5))

    async def _kill(self) -> None:
        daemon = await self._running_daemon()
        daemon.running.kill()
        await daemon.running.end()
        await self._start()

    async def _stop(self) -> None:
        daemon = await self._running_daemon()
        await daemon.end()
        await self._start()

    async def _reload(self) -> None:
        concurrency = self._chance.randint(1, 4)
        self._site.program.config.write_text(self._good.replace("concurrency: 3", f"concurrency: {concurrency}"))
        (await self._running_daemon()).send(signal.SIGHUP)

    async def _bad_reload(self) -> None:
        daemon = await self._running_daemon()
        before = daemon.count("config_rejected")
        self._site.program.config.write_text(self._chance.choice(["orgs: [", "nonsense: 1\n", ""]))
        daemon.send(signal.SIGHUP)
        await daemon.wait_for_event("config_rejected", before + 1)
        self._site.program.config.write_text(self._good)

    async def _run_now(self) -> None:
        (await self._running_daemon()).send(signal.SIGUSR1)

    async def _pause(self) -> None:
        daemon = await self._running_daemon()
        daemon.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.uniform(0.1, 1.5))
        daemon.send(signal.SIGCONT)

    async def _terminate_backends(self) -> None:
        self._site.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self._site.name}' AND application_name LIKE 'flow-outcomes %'"
        )

    async def _reset_connections(self) -> None:
        self._site.proxy.reset()

    async def _lose_commit_answer(self) -> None:
        self._site.proxy.commit_answers_to_lose += 1

    async def _stall(self) -> None:
        self._site.proxy.stall()
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        self._site.proxy.heal()

    async def _read_only(self) -> None:
        self._site.server.run("ALTER SYSTEM SET default_transaction_read_only = on")
        self._site.server.run("SELECT pg_reload_conf()")
        await asyncio.sleep(self._chance.uniform(0.2, 1.5))
        self._site.server.run("ALTER SYSTEM RESET ALL")
        self._site.server.run("SELECT pg_reload_conf()")

    async def _restart_database(self) -> None:
        await asyncio.to_thread(self._site.server.stop)
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        await asyncio.to_thread(self._site.start_server)

    async def _crash_database(self) -> None:
        await asyncio.to_thread(self._site.server.crash)
        await asyncio.to_thread(self._site.start_server)

    async def _revoke_tokens(self) -> None:
        self._simulator.revoke_tokens()

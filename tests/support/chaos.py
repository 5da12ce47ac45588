"""What goes wrong next, and whether all is right in the end.

Everything is drawn from a seed: what is done and when. What that meets in the program is its own timing's: a seed
repeats a run's course, not its every instant.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from service.simulator import Fault, Simulator
from tests.support.daemon import Daemon, Reader, complete, exact
from tests.support.site import DAYS, Site

# Faults after which the same window can be had: none of them changes a figure.
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
    """One run against one site.

    Attributes:
        fired: what was done, and what struck, by name.
    """

    def __init__(self, seed: int, site: Site, simulator: Simulator) -> None:
        self.seed = seed
        self.fired: Counter[str] = Counter()
        self._chance = random.Random(seed)  # noqa: S311 - it keeps no secret
        self._site = site
        self._simulator = simulator
        self._daemon: Daemon | None = None
        self._good = site.program.config.read_text()
        self._deeds: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (12, self._api_fault),
            (4, self._kill),
            (2, self._stop),
            (3, self._reload),
            (2, self._bad_reload),
            (2, self._run_now),
            (2, self._pause),
            (3, self._terminate_backends),
            (2, self._reset_connections),
            (2, self._swallow_commit),
            (2, self._cut),
            (2, self._read_only),
            (1, self._restart_database),
            (1, self._crash_database),
            (1, self._revoke_tokens),
        ]

    async def run(self, seconds: float) -> None:
        """Make trouble for so long, then let it settle; whatever is not as it must be fails the test."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with Reader(lambda: self._site.dsn) as reader:
            self._simulator.switch("server_error", Fault(503, times=2))  # one that strikes for certain
            await self._start()
            weights = [weight for weight, _ in self._deeds]
            while loop.time() < until:
                (_, deed), *_ = self._chance.choices(self._deeds, weights)
                self.fired[deed.__name__.strip("_")] += 1
                await deed()
                await asyncio.sleep(self._chance.uniform(0.0, 0.8))
            await self._settle()
            assert reader.looks > seconds
            assert reader.in_part == [], self.told()
        exact(self._site.program, self._simulator)
        restated = self._site.program.rows("SELECT count(*) AS n FROM flow_outcomes.restatement")
        assert restated == [{"n": 0}], self.told()
        left = self._site.program.rows("SELECT count(*) AS n FROM flow_outcomes.staging")
        assert left == [{"n": 0}], self.told()
        self.fired += Counter({f"api {name}": count for name, count in self._simulator.fired.items()})
        self.fired += Counter({f"network {name}": count for name, count in self._site.proxy.fired.items()})

    def told(self) -> str:
        """The seed, and what fired."""
        return f"seed {self.seed}: {dict(sorted(self.fired.items()))}"

    async def _settle(self) -> None:
        for name in API_FAULTS:
            self._simulator.switch(name, None)
        self._site.proxy.swallow = 0
        self._site.proxy.heal()
        daemon = await self._living()
        daemon.send(signal.SIGUSR1)
        await complete(daemon, DAYS - 1, within=90)
        took = await daemon.end()
        assert took < 20, self.told()

    async def _start(self) -> None:
        self._daemon = await Daemon.start(self._site.program)

    async def _living(self) -> Daemon:
        daemon = self._daemon
        assert daemon is not None
        assert daemon.running.process.returncode is None, (self.told(), daemon.tail())
        assert daemon.count("unexpected_error") == 0, (self.told(), daemon.tail())
        return daemon

    async def _api_fault(self) -> None:
        name = self._chance.choice(sorted(API_FAULTS))
        times = self._chance.randint(1, 3)
        self._simulator.switch(name, Fault(value=API_FAULTS[name], times=times, probability=0.5))

    async def _kill(self) -> None:
        daemon = await self._living()
        daemon.running.kill()
        await daemon.running.end()
        await self._start()

    async def _stop(self) -> None:
        daemon = await self._living()
        await daemon.end()
        await self._start()

    async def _reload(self) -> None:
        concurrency = self._chance.randint(1, 4)
        self._site.program.config.write_text(self._good.replace("concurrency: 3", f"concurrency: {concurrency}"))
        (await self._living()).send(signal.SIGHUP)

    async def _bad_reload(self) -> None:
        daemon = await self._living()
        before = daemon.count("config_rejected")
        self._site.program.config.write_text(self._chance.choice(["orgs: [", "nonsense: 1\n", ""]))
        daemon.send(signal.SIGHUP)
        await daemon.told("config_rejected", before + 1)
        self._site.program.config.write_text(self._good)

    async def _run_now(self) -> None:
        (await self._living()).send(signal.SIGUSR1)

    async def _pause(self) -> None:
        daemon = await self._living()
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

    async def _swallow_commit(self) -> None:
        self._site.proxy.swallow += 1

    async def _cut(self) -> None:
        self._site.proxy.cut()
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
        await asyncio.to_thread(self._site.up)

    async def _crash_database(self) -> None:
        await asyncio.to_thread(self._site.server.crash)
        await asyncio.to_thread(self._site.up)

    async def _revoke_tokens(self) -> None:
        self._simulator.revoke_tokens()

"""A month of daily and hourly jobs with faults: figures are exact and no resource leaks."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import aiohttp
import pytest
import structlog

from service.config import Config, load_config
from service.runtime.daemon import Daemon
from service.simulator import Fault, SimulatedOrg, Simulator, SimulatorConfig, TimeGroup
from service.telemetry import Reporter, logs
from tests.support.fast_clock import FastClock
from tests.support.footprint import MIB, Footprint, idle
from tests.support.program import Program, expected, figures

DAY_SECONDS = float(os.environ.get("FLOW_OUTCOMES_SOAK_DAY_SECONDS", "20"))
DAYS = int(os.environ.get("FLOW_OUTCOMES_SOAK_DAYS", "30"))
SEED = int(os.environ.get("FLOW_OUTCOMES_SOAK_SEED", "0")) or secrets.randbelow(2**31)
DAY = timedelta(days=1)
BEGIN = date(2024, 3, 12)  # so that the month has a clock change in Berlin
ZONES = {"acme": "UTC", "berlin": "Europe/Berlin"}
JOBS = {
    "daily": {"since": BEGIN, "lookback": "P5D"},
    # corrections become visible a day later
    "hourly": {"window": "hour", "granularity": "hourly", "off_peak": None, "since": BEGIN, "lookback": "P3D"},
}

# None of these faults changes a figure.
API_FAULTS: dict[str, object] = {
    "server_error": 503,
    "throttled": "1",
    "connection_reset": None,
    "missing_token": None,
    "cursor_expired": 410,
    "repeated_token": None,
    "not_json": None,
    "truncated": "chunked",
    "unauthorized": None,
    "slow": 1.5,  # longer than query_timeout
    "drip": 0.2,
    "token_error": 500,
    "token_reset": None,
    "token_throttled": "1",
}
# Bounded records: the last warnings, and each org's requests of the last second.
BOUNDED = Counter({"service.telemetry.reporter.Warned": 50, "service.genesys.limiter.Permit": 400})
ACTIONS = ("terminate", "revoke", "reload", "run_now", "scrape")


class CountingReporter(Reporter):
    """A reporter that counts events.

    Attributes:
        counts: how often each event was reported.
        address: the address of the daemon's web server.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.address = ""

    def emit(self, event: str, **context: object) -> None:
        """Count and report an event."""
        self.counts[event] += 1
        self.address = str(context.get("http_address", self.address))
        super().emit(event, **context)


class Soak:
    """A daemon in this process, its simulator, and random faults.

    Attributes:
        fired: how often each action was done and each fault fired, by name.
    """

    def __init__(self, seed: int, program: Program, simulator: Simulator, clock: FastClock, pause: float) -> None:
        self.seed = seed
        self._pause = pause
        self.fired: Counter[str] = Counter()
        self.reporter = CountingReporter()
        self._program = program
        self.daemon = Daemon(self._config(), self._config, self.reporter)
        self._chance = random.Random(seed)  # noqa: S311 - not for cryptography
        self._simulator = simulator
        self._clock = clock
        self._good = program.config.read_text()
        self._remaining: list[str] = []

    def _config(self) -> Config:
        return load_config(self._program.config, {})

    async def cause_faults(self, until: datetime) -> None:
        """Cause faults one after the other until ``until``, all equally often."""
        while (left := self._clock.until(until)) > 0:
            await asyncio.sleep(min(left, self._chance.uniform(0.2, 1.8) * self._pause))
            if not self._remaining:
                self._remaining = [*API_FAULTS, *ACTIONS]
                self._chance.shuffle(self._remaining)
            await self._cause(self._remaining.pop())

    async def measure_idle(self) -> Footprint:
        """Stop the clock, wait until the daemon is idle, and measure its resources."""
        self._clock.stop(self._clock.now())
        for name in API_FAULTS:
            self._simulator.switch(name, None)
        for _ in range(2):  # failed windows are extracted again
            await idle(self.daemon)
            self.daemon.signals.deliver(self.daemon.signals.run_now)
        await idle(self.daemon)
        return await Footprint.of(self.daemon, self._simulator, self._program.dsn)

    async def _cause(self, name: str) -> None:
        if name in API_FAULTS:
            org = self._chance.choice(list(ZONES))
            times = self._chance.randint(1, 3)
            self._simulator.switch(name, Fault(API_FAULTS[name], times=times), org=org)
            return
        actions: dict[str, Callable[[], Awaitable[None]]] = {
            "terminate": self._terminate,
            "revoke": self._revoke,
            "reload": self._reload,
            "run_now": self._run_now,
            "scrape": self._scrape,
        }
        await actions[name]()
        self.fired[name] += 1

    async def _terminate(self) -> None:
        self._program.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'flow-outcomes %%'"
        )

    async def _revoke(self) -> None:
        self._simulator.revoke_tokens()

    async def _reload(self) -> None:
        concurrency = self._chance.randint(2, 4)
        text = self._good.replace("concurrency: 3", f"concurrency: {concurrency}")
        # another base_url restarts the org with a new client
        text = text.replace("http://127.0.0.1", self._chance.choice(["http://127.0.0.1", "http://localhost"]))
        self._program.config.write_text(text)
        self.daemon.signals.deliver(self.daemon.signals.reload)

    async def _run_now(self) -> None:
        self.daemon.signals.deliver(self.daemon.signals.run_now)

    async def _scrape(self) -> None:
        async with aiohttp.ClientSession() as session:
            for path in ("/metrics", "/readyz", "/api/status", "/"):
                async with session.get(f"http://{self.reporter.address}{path}") as response:
                    assert (await response.read()) != b""


async def soak(
    folder: Path, dsn: str, patch: pytest.MonkeyPatch, *, seed: int, days: int, day_seconds: float, pause: float
) -> Soak:
    """Run the daemon for ``days`` simulated days and check the figures and the resources."""
    clock = FastClock(datetime.combine(BEGIN, time(), UTC), DAY.total_seconds() / day_seconds)
    orgs = {
        name: SimulatedOrg(requests_per_second=None, flows=4, outcomes=4, timezone=zone, token_lifetime=60)
        for name, zone in ZONES.items()
    }
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    with _log_to_file(folder / "log"):
        async with Simulator(SimulatorConfig(orgs=orgs), clock) as simulator, Program(folder, dsn) as program:
            program.configure(
                simulator,
                orgs={
                    name: {
                        "timezone": zone,
                        "page_size": 50,
                        "concurrency": 3,
                        "query_timeout": "PT1S",
                        "breaker": {"failures": 5, "open_for": "PT1S"},
                    }
                    for name, zone in ZONES.items()
                },
                jobs=JOBS,
                database={"dsn": dsn, "pool_size": 4},
                http={"port": 0},
            )
            clock.install(patch)
            run = Soak(seed, program, simulator, clock, pause)
            print(f"soak: seed {seed}, {days} days of {day_seconds:g} s")  # noqa: T201 - to repeat a run
            serving = asyncio.create_task(run.daemon.serve())
            try:
                async with asyncio.timeout(30):
                    while "cycle_started" not in run.reporter.counts:
                        assert not serving.done(), serving
                        await asyncio.sleep(0.05)
                footprints = []
                for day in range(1, days + 1):
                    await run.cause_faults(datetime.combine(BEGIN, time(), UTC) + day * DAY)
                    if day in (1, days) or day % 5 == 0:
                        footprints.append(await run.measure_idle())
                        if day < days:
                            clock.resume()
                        print(f"soak: day {day}: {footprints[-1].grown(footprints[0])}")  # noqa: T201
                _assert_exact(program, simulator, days)
            finally:
                run.daemon.signals.deliver(run.daemon.signals.stop)
                async with asyncio.timeout(30):
                    await serving
            run.fired += simulator.fired
            print(f"soak: {dict(sorted(run.fired.items()))}; {dict(sorted(run.reporter.counts.items()))}")  # noqa: T201
            assert simulator.hold_violations == 0
            assert simulator.in_flight_violations == 0
    assert unhandled == []
    assert run.reporter.counts["unexpected_error"] == 0
    _assert_no_growth(footprints)
    return run


def _assert_exact(program: Program, simulator: Simulator, days: int) -> None:
    """Assert that every window of both jobs is complete and every figure equals the source."""
    for org, zone in ZONES.items():
        first = datetime.combine(BEGIN, time(), ZoneInfo(zone)).astimezone(UTC)
        kinds: list[tuple[TimeGroup, int]] = [("hourly", days * 24 - 1), ("daily", days - 1)]
        for granularity, minimum in kinds:
            windows = [each for each in program.windows(org) if each["job"] == granularity]
            assert {each["state"] for each in windows} == {"complete"}, windows
            assert len(windows) >= minimum
            buckets = [(each["window_start"], each["window_end"]) for each in windows]
            assert buckets[0][0] == first
            assert all(one[1] == other[0] for one, other in pairwise(buckets))
            truth = simulator.truth(buckets[0][0], buckets[-1][1], granularity, org=org)
            assert figures(program.stored(org, granularity)) == expected(truth, buckets)


def _assert_no_growth(footprints: list[Footprint]) -> None:
    """Assert that the last footprint is like the first."""
    first, last = footprints[0], footprints[-1]
    grown = last.grown(first)
    assert not last.tasks - first.tasks, grown
    assert last.descriptors.total() <= first.descriptors.total() + 1, grown
    assert last.connections.total() <= first.connections.total() + 1, grown
    assert (last.objects - first.objects - BOUNDED).total() <= 10, grown
    assert last.tracked <= first.tracked + 2000, grown
    assert last.timers <= 2 * len(JOBS) * len(ZONES), grown
    assert last.series <= first.series + 40, grown
    assert last.resident <= first.resident + 16 * MIB, grown


@contextmanager
def _log_to_file(to: Path) -> Iterator[None]:
    """Log to a file, as a daemon process does; pytest would keep every record in memory."""
    handlers, level = logging.root.handlers[:], logging.root.level
    with to.open("w") as stream:
        logs.configure("info", "json", stream)
        logging.captureWarnings(capture=False)
        try:
            yield
        finally:
            structlog.reset_defaults()
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)


@pytest.mark.acceptance
async def test_three_days(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three short days with a fixed seed."""
    run = await soak(tmp_path, database, monkeypatch, seed=5, days=3, day_seconds=3, pause=0.3)
    assert len(run.fired) > 8, run.fired
    assert {"terminate", "reload"} <= run.fired.keys(), run.fired


@pytest.mark.soak
async def test_thirty_days(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLOW_OUTCOMES_SOAK_DAYS days of FLOW_OUTCOMES_SOAK_DAY_SECONDS, from FLOW_OUTCOMES_SOAK_SEED."""
    run = await soak(tmp_path, database, monkeypatch, seed=SEED, days=DAYS, day_seconds=DAY_SECONDS, pause=0.9)
    assert {*API_FAULTS, *ACTIONS} <= run.fired.keys(), run.fired

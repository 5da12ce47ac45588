"""A running daemon: its log, its readiness, its end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Self

import aiohttp
import psycopg
import pytest

from service.simulator import Simulator
from tests.support.program import Program, Row, Running, expected, figures

TIMEOUT = 40.0

# Windows whose state and rows do not agree. One statement, so one snapshot.
_PARTIAL_WINDOWS = """
    SELECT w.org, w.window_start, w.state, w.rows, coalesce(f.figures, 0) AS figures
    FROM flow_outcomes.extraction_window w
    LEFT JOIN (SELECT org, bucket_start, count(outcome_count) AS figures FROM flow_outcomes.flow_outcome
               WHERE granularity = 'daily' GROUP BY 1, 2) f
      ON f.org = w.org AND f.bucket_start = w.window_start
    WHERE w.job IS NOT NULL
      AND coalesce(f.figures, 0) <> CASE WHEN w.state = 'complete' THEN w.rows ELSE 0 END
"""


class Daemon:
    """``flow-outcomes run`` as a process."""

    def __init__(self, program: Program, running: Running) -> None:
        self.program = program
        self.running = running
        self._seen = 0
        self._events: list[Row] = []

    @classmethod
    async def start(
        cls, program: Program, *, ready: bool = True, environment: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start a daemon; with ``ready``, wait until it handles signals."""
        daemon = cls(program, await program.start("run", environment=environment))
        if ready:
            await daemon.wait_for_event("daemon_started")
        return daemon

    @property
    def pid(self) -> int:
        """The process id."""
        return self.running.process.pid

    @property
    def events(self) -> list[Row]:
        """The log so far."""
        for line in self.running.out[self._seen :]:
            self._events.append(json.loads(line))
        self._seen = len(self.running.out)
        return self._events

    def count(self, event: str, **context: object) -> int:
        """Return how often an event was logged with this context."""
        return sum(
            line["event"] == event and all(line.get(key) == value for key, value in context.items())
            for line in self.events
        )

    async def wait_for_event(
        self, event: str, times: int = 1, *, within: float = TIMEOUT, **context: object
    ) -> Row:
        """Wait until an event was logged ``times`` times; return its last line."""
        await self.wait_until(lambda: self.count(event, **context) >= times, f"{times} {event}", within=within)
        return [line for line in self.events if line["event"] == event][-1]

    async def wait_until(self, true: Callable[[], bool], what: str, *, within: float = TIMEOUT) -> None:
        """Wait until ``true`` returns True; fail if the daemon ends first."""
        try:
            async with asyncio.timeout(within):
                while not true():
                    assert self.running.process.returncode is None, (what, self.tail())
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"no {what} within {within:g} s; {self.tail()}")

    def tail(self) -> str:
        """Return the last lines of its output."""
        return "".join([*self.running.out[-12:], *self.running.err[-12:]])

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        self.running.process.send_signal(number)

    async def end(self, number: signal.Signals = signal.SIGTERM, *, code: int = 0, within: float = 25.0) -> float:
        """End the daemon with a signal; return the seconds it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.send(number)
        return await self.wait_until_ended(began, code=code, within=within)

    async def wait_until_ended(self, began: float, *, code: int = 0, within: float = 25.0) -> float:
        """Wait until the daemon ends; return the seconds since ``began``."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within):
                await self.running.process.wait()
        except TimeoutError:
            pytest.fail(f"the daemon did not end within {within:g} s; {self.tail()}")
        took = loop.time() - began
        ended = await self.running.end()
        assert (ended.code, ended.err) == (code, ""), self.tail()
        return took

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET to the daemon's web server."""
        address = next(line["http_address"] for line in self.events if line["event"] == "daemon_started")
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{address}{path}", timeout=aiohttp.ClientTimeout(total=10)) as response,
        ):
            return response.status, await response.text()

    async def wait_until_ready(self, *, within: float = TIMEOUT) -> float:
        """Wait until /readyz answers 200; return the seconds it took."""
        return await self._wait_for_readyz(200, within)

    async def wait_until_unready(self, *, within: float = TIMEOUT) -> float:
        """Wait until /readyz answers 503; return the seconds it took."""
        return await self._wait_for_readyz(503, within)

    async def _wait_for_readyz(self, status: int, within: float) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (answer := await self.get("/readyz"))[0] != status:
            assert loop.time() - began < within, (answer, self.tail())
            await asyncio.sleep(0.1)
        return loop.time() - began


class Reader:
    """Reads the tables continuously and collects windows that are visible in part.

    Args:
        dsn: returns the DSN to connect with.
        pause: seconds between two reads.

    Attributes:
        reads: how often the tables were read.
        partial: rows of partially visible windows.
    """

    def __init__(self, dsn: Callable[[], str], *, pause: float = 0.02) -> None:
        self._dsn = dsn
        self._pause = pause
        self.reads = 0
        self.partial: list[Row] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._dsn(), autocommit=True, row_factory=psycopg.rows.dict_row
                ) as connection:
                    while True:
                        self.partial += await (await connection.execute(_PARTIAL_WINDOWS)).fetchall()
                        self.reads += 1
                        await asyncio.sleep(self._pause)
            except psycopg.Error:
                await asyncio.sleep(0.1)


def assert_exact(program: Program, simulator: Simulator, org: str = "acme") -> None:
    """Assert that every window of the org is complete and its rows equal the source."""
    windows = program.windows(org)
    assert windows
    assert {window["state"] for window in windows} == {"complete"}, windows
    buckets: list[tuple[datetime, datetime]] = []
    for window in windows:
        start = window["window_start"]
        while start < window["window_end"]:
            buckets.append((start, start + timedelta(days=1)))
            start += timedelta(days=1)
    truth = simulator.truth(buckets[0][0], buckets[-1][1], "daily", org=org)
    assert figures(program.stored(org, "daily")) == expected(truth, buckets)


async def wait_until_complete(daemon: Daemon, windows: int, org: str = "acme", *, within: float = TIMEOUT) -> None:
    """Wait until at least ``windows`` windows of the org are complete and no others exist."""

    def all_complete() -> bool:
        try:
            rows = daemon.program.windows(org)
        except psycopg.Error:
            return False
        return len(rows) >= windows and all(row["state"] == "complete" for row in rows)

    await daemon.wait_until(all_complete, f"{windows} complete windows of {org}", within=within)

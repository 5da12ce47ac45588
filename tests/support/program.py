"""The installed program as a process, and the figures that it must store.

The simulator runs on the test's event loop, so a test must never block while it waits for a process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from service.simulator import Simulator

PROGRAM = Path(sys.executable).with_name("flow-outcomes")
TIMEOUT = 120.0  # seconds after which a process counts as stuck
SECRET = "canary-secret-5f1d0c"

Row = dict[str, Any]
Key = tuple[str, datetime, str]


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        code: the exit code; a negative one is the signal that ended it.
        out: its standard output.
        err: its standard error.
        peak: its peak memory, in bytes.
    """

    code: int
    out: str
    err: str
    peak: int

    @cached_property
    def events(self) -> list[Row]:
        """The log lines of both streams."""
        return [json.loads(line) for line in [*self.out.splitlines(), *self.err.splitlines()] if line[:1] == "{"]

    def find_events(self, event: str, **context: object) -> list[Row]:
        """Return the log lines with this event and context."""
        return [
            line
            for line in self.events
            if line["event"] == event and all(line.get(key) == value for key, value in context.items())
        ]

    def failures(self) -> str:
        """Return why windows failed, for an assertion's message."""
        return (
            "; ".join(f"{line['org']}: {line['reason']}" for line in self.find_events("window_failed")) or self.err
        )


@dataclass
class Running:
    """A running process.

    Attributes:
        out: lines of its standard output so far.
        err: lines of its standard error so far.
    """

    process: asyncio.subprocess.Process
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    _reading: list[asyncio.Task[None]] = field(default_factory=list)
    _peak: int = 0

    def __post_init__(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._reading = [
            asyncio.create_task(_read(self.process.stdout, self.out)),
            asyncio.create_task(_read(self.process.stderr, self.err)),
            asyncio.create_task(self._measure()),
        ]

    def kill(self) -> None:
        """Kill the process."""
        if self.process.returncode is None:
            self.process.kill()

    async def end(self) -> Ended:
        """Wait until the process ends."""
        try:
            async with asyncio.timeout(TIMEOUT):
                code = await self.process.wait()
                await asyncio.gather(*self._reading)
        except TimeoutError:
            self.kill()
            pytest.fail(f"the process is stuck; it wrote {self.out[-20:]} and {self.err[-20:]}")
        return Ended(code, "".join(self.out), "".join(self.err), self._peak)

    async def _measure(self) -> None:
        """Poll the kernel's high-water mark, so that little is lost between two reads."""
        while self.process.returncode is None:
            self._peak = max(self._peak, _high_water(self.process.pid))
            await asyncio.sleep(0.05)


def _high_water(pid: int) -> int:
    """Return a process's peak memory so far, in bytes; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


async def _read(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode())


class Program:
    """The program with one configuration on one database.

    Args:
        folder: the working directory, with the configuration file.
        dsn: the DSN of the database.
    """

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder = folder
        self.dsn = dsn
        self.config = folder / "flow-outcomes.yaml"
        self._running: list[Running] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for running in self._running:
            running.kill()
            await running.end()

    def configure(
        self,
        simulator: Simulator,
        *,
        orgs: Mapping[str, Mapping[str, object]] | None = None,
        jobs: Mapping[str, object] | None = None,
        ad_hoc: Mapping[str, object] | None = None,
        **other: object,
    ) -> None:
        """Write the configuration, with an org for each of the simulator's orgs."""
        settings_by_org = orgs or {name: {} for name in simulator.orgs}
        tree: dict[str, object] = {
            "database": {"dsn": self.dsn},
            "orgs": {
                name: {
                    "base_url": simulator.base_url,
                    "login_url": simulator.base_url,
                    "client_id": name,
                    "client_secret": simulator.orgs[name].settings.client_secret,
                    "requests_per_second": 200,
                    **settings,
                }
                for name, settings in settings_by_org.items()
            },
            "jobs": jobs or {},
            "ad_hoc": ad_hoc or {},
            **other,
        }
        self.config.write_text(yaml.safe_dump(tree))

    async def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
        """Start a command with ``--config``."""
        config = [] if "--config" in arguments else ["--config", str(self.config)]
        return await self.start_bare(*arguments, *config, environment=environment)

    async def start_bare(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
        """Start the program with only these arguments, in a clean environment."""
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM),
            *arguments,
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **(environment or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        running = Running(process)
        self._running.append(running)
        return running

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Ended:
        """Run a command to its end."""
        return await (await self.start(*arguments, environment=environment)).end()

    def rows(self, query: str, *parameters: object) -> list[Row]:
        """Run a query and return its rows."""
        with psycopg.connect(self.dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def windows(self, org: str | None = None) -> list[Row]:
        """Return the rows of ``extraction_window``, ordered by start."""
        return self.rows(
            "SELECT * FROM flow_outcomes.extraction_window WHERE %s::text IS NULL OR org = %s"
            " ORDER BY org, window_start, job",
            org,
            org,
        )

    def stored(self, org: str, granularity: str) -> dict[Key, Row]:
        """Return the stored figures of an org, including nulls."""
        return {
            (row["flow_id"], row["bucket_start"], row["outcome_name"]): row
            for row in self.rows(
                "SELECT * FROM flow_outcomes.flow_outcome WHERE org = %s AND granularity = %s", org, granularity
            )
        }


def expected(
    truth: Mapping[Key, tuple[int, float]],
    buckets: Iterable[tuple[datetime, datetime]],
    *,
    expect_for: timedelta = timedelta(days=31),
) -> dict[Key, tuple[int | None, float | None, float | None]]:
    """Return what must be stored of a source: count, percentage and share, and a null for each absent outcome.

    Computed from the contract alone, bucket by bucket.
    """
    ends = dict(buckets)
    totals: dict[tuple[str, datetime], int] = {}
    seen: dict[tuple[str, str], list[datetime]] = {}
    for (flow, start, name), (count, _) in truth.items():
        totals[flow, start] = totals.get((flow, start), 0) + count
        seen.setdefault((flow, name), []).append(start)
    result: dict[Key, tuple[int | None, float | None, float | None]] = {}
    for (flow, start, name), (count, percentage) in truth.items():
        total = totals[flow, start]
        result[flow, start, name] = (count, percentage, count / total if total else None)
    for (flow, name), starts in seen.items():
        for start in ends:
            if start not in starts and any(
                ends[before] <= start <= ends[before] + expect_for for before in starts if before < start
            ):
                result[flow, start, name] = (None, None, None)
    return result


def figures(stored: Mapping[Key, Row]) -> dict[Key, tuple[int | None, float | None, float | None]]:
    """Return the columns of stored rows that can be compared with the source."""
    return {
        key: (row["outcome_count"], row["outcome_percentage"], row["outcome_share"]) for key, row in stored.items()
    }


def today() -> datetime:
    """Return the start of the current day, in UTC; until the day before is due, of that day.

    With the least delay of an hour, and two minutes for the test, every earlier day is due.
    """
    return (datetime.now(UTC) - timedelta(minutes=62)).replace(hour=0, minute=0, second=0, microsecond=0)

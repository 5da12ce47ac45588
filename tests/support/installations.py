"""Two installations as processes, a server and two daemons each, and a third server that reads both.

The statements of the third server are those that ``flow-outcomes fdw`` prints.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from psycopg.rows import dict_row

from service.postgres.embedded.binaries import User, server_user
from service.postgres.fdw import AS_OF, RELATIONS
from service.simulator import Simulator
from tests.support.cluster import ClusterServer, programs_with_fdw, temporary_folder
from tests.support.daemon import Daemon
from tests.support.fault_harness import DAYS, JOB
from tests.support.program import Program, Row

ORGS = {
    "north": ("bergen", "malmo", "oslo", "turku"),
    "south": ("nice", "porto", "roma", "sofia"),
}
TIMEOUT = 40.0  # seconds


class InstallationProcesses:
    """One installation: a server, a configuration, and two daemons.

    Attributes:
        name: its name.
        orgs: its orgs.
        server: its PostgreSQL.
        program: the program with its configuration.
        daemons: the daemons that run.
    """

    def __init__(self, name: str, server: ClusterServer, program: Program) -> None:
        self.name = name
        self.orgs = ORGS[name]
        self.server = server
        self.program = program
        self.daemons: list[Daemon] = []

    def configure(self, simulator: Simulator) -> None:
        """Write the configuration: every cycle extracts the last ``DAYS`` days."""
        self.program.configure(
            simulator,
            orgs={org: {"page_size": 3, "concurrency": 1} for org in self.orgs},
            jobs={"daily": {**JOB, "retry_every": "PT1S", "lookback": f"P{DAYS}D"}},
            database={"dsn": self.server.dsn, "pool_size": 4},
            http={"port": 0},
        )

    async def start_daemons(self) -> None:
        """Start daemons until two run."""
        missing = 2 - len(self.daemons)
        self.daemons += await asyncio.gather(*(Daemon.start(self.program) for _ in range(missing)))

    async def wait_until_shared(self) -> None:
        """Wait until each daemon holds two of the four orgs."""
        async with asyncio.timeout(TIMEOUT):
            while sorted(map(len, self._held().values())) != [2, 2]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.1)

    def count(self, event: str) -> int:
        """Return how often the daemons that run have logged an event."""
        return sum(daemon.count(event) for daemon in self.daemons)

    async def crash(self) -> None:
        """Crash the server, and wait until no daemon is ready."""
        await asyncio.to_thread(self.server.crash)
        await asyncio.gather(*(daemon.wait_until_unready() for daemon in self.daemons))

    async def kill_daemon(self) -> None:
        """Kill a daemon that holds orgs."""
        held = self._held()
        daemon = next(each for each in self.daemons if held[each.pid])
        self.daemons.remove(daemon)
        daemon.running.kill()
        assert (await daemon.running.end()).code == -signal.SIGKILL

    def _held(self) -> dict[int, list[str]]:
        """The orgs that each daemon holds, by its process id."""
        rows = self.server.run("SELECT owner, org FROM flow_outcomes.org_lease WHERE owner IS NOT NULL")
        return {
            daemon.pid: [str(org) for owner, org in rows if f":{daemon.pid}:" in str(owner)]
            for daemon in self.daemons
        }


class ReportsDatabase:
    """The third database, with one session that stays open and others that are new.

    Attributes:
        server: its PostgreSQL.
    """

    def __init__(self, server: ClusterServer) -> None:
        self.server = server
        self._open: psycopg.AsyncConnection[Row]

    async def __aenter__(self) -> Self:
        self._open = await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.close()

    async def rows(self, query: str, *parameters: object, new: bool = False) -> list[Row]:
        """Return a query's rows, in the open session or in a new one."""
        if not new:
            return await (await self._open.execute(query.encode(), parameters)).fetchall()
        async with await self._connect() as connection:
            return await (await connection.execute(query.encode(), parameters)).fetchall()

    async def assert_fails(self) -> None:
        """Assert that no query over all orgs returns rows, in the open session and in a new one."""
        sources = [*RELATIONS, *(f"{relation}_as_of(now())" for relation in AS_OF)]
        queries = [f"SELECT * FROM flow_outcomes.{source}" for source in sources]
        queries += [f"SELECT org, count(*) FROM flow_outcomes.{source} GROUP BY org" for source in sources]
        for new in (False, True):
            for query in queries:
                with pytest.raises(psycopg.OperationalError, match="server"):
                    await self.rows(query, new=new)

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self.server.dsn, autocommit=True, row_factory=dict_row, options="-c timezone=UTC"
        )


@asynccontextmanager
async def two_installations(
    folder: Path, simulator: Simulator
) -> AsyncIterator[tuple[Mapping[str, InstallationProcesses], ReportsDatabase]]:
    """Start the servers and the daemons, which migrate, and create the database that reads both."""
    programs = programs_with_fdw()
    with temporary_folder("flow-outcomes-installations-") as home:
        servers = {name: _server(programs, server_user(home), home / name) for name in (*ORGS, "reports")}
        try:
            await asyncio.gather(*(asyncio.to_thread(_start, server) for server in servers.values()))
            places = {name: folder / name for name in ORGS}
            for place in places.values():
                place.mkdir()
            async with (
                Program(places["north"], servers["north"].dsn) as north,
                Program(places["south"], servers["south"].dsn) as south,
            ):
                both = {
                    name: InstallationProcesses(name, servers[name], program)
                    for name, program in zip(ORGS, (north, south), strict=True)
                }
                for installation in both.values():
                    installation.configure(simulator)
                await asyncio.gather(*(each.start_daemons() for each in both.values()))
                for daemon in (daemon for each in both.values() for daemon in each.daemons):
                    await daemon.wait_until_ready()  # the schema is complete
                await _create_reports(servers["reports"], list(both.values()))
                async with ReportsDatabase(servers["reports"]) as reports:
                    yield both, reports
        finally:
            for server in servers.values():
                server.stop()


def _server(programs: Path, user: User, folder: Path) -> ClusterServer:
    user.make(folder)
    return ClusterServer(programs, user, folder / "data")


def _start(server: ClusterServer) -> None:
    server.create()
    server.start()


async def _create_reports(server: ClusterServer, both: Sequence[InstallationProcesses]) -> None:
    configs = [word for each in both for word in ("--config", str(each.program.config))]
    printed = await both[0].program.run("fdw", *configs)
    assert (printed.code, printed.err) == (0, "")
    server.run(printed.out)

"""A PostgreSQL that a test can stop and break, and a program that reaches it through a proxy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path

import psycopg
import pytest

from service.postgres.embedded.server import IMMEDIATE, Embedded
from service.simulator import Simulator
from tests.support.databases import url
from tests.support.program import Program, today
from tests.support.proxy import Proxy

DAYS = 20
JOB: dict[str, object] = {
    "window": "day",
    "granularity": "daily",
    "since": today().date() - timedelta(days=DAYS),
    "off_peak": None,
}
LONG_FORM = partial(pytest.param, marks=pytest.mark.chaos)  # cases for `make chaos` alone


class BreakableServer:
    """A PostgreSQL that can be stopped and crashed; it restarts on another port.

    Attributes:
        dsn: the DSN of the running server.
    """

    def __init__(self, folder: Path) -> None:
        self._embedded = Embedded(folder, durable=False)
        self.dsn = self._embedded.start()

    def start(self) -> None:
        """Start the server unless it runs."""
        if self._embedded._server is None:
            self.dsn = self._embedded.start()

    def stop(self) -> None:
        """Stop the server cleanly, ending its sessions."""
        self._embedded.stop()

    def crash(self) -> None:
        """Stop the server as a crash would."""
        assert self._embedded._server is not None
        self._embedded._server.send_signal(IMMEDIATE)
        self._embedded.stop()

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser."""
        with psycopg.connect(url(self.dsn, database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class FaultHarness:
    """A database on a breakable server, a proxy in front of it, and the program that uses it.

    Attributes:
        server: the server.
        name: name of the database.
        proxy: the proxy through which the program connects.
        program: the program under test.
    """

    def __init__(self, server: BreakableServer, name: str, proxy: Proxy, program: Program) -> None:
        self.server = server
        self.name = name
        self.proxy = proxy
        self.program = program

    @property
    def dsn(self) -> str:
        """The DSN of the database, without the proxy."""
        return url(self.server.dsn, self.name)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement in the database as the superuser."""
        return self.server.run(statement, self.name)

    def start_server(self) -> None:
        """Start the server and update the DSNs."""
        self.server.start()
        self.program.dsn = self.dsn
        self.proxy.set_target(self.dsn)

    def configure(
        self,
        simulator: Simulator,
        *,
        orgs: Mapping[str, Mapping[str, object]] | None = None,
        jobs: Mapping[str, object] | None = None,
        ad_hoc: Mapping[str, object] | None = None,
        **other: object,
    ) -> None:
        """Configure the program: by default each org extracts the last ``DAYS`` days."""
        self.program.configure(
            simulator,
            orgs=orgs or {org: {"page_size": 6, "concurrency": 3} for org in simulator.orgs},
            jobs=jobs or {"daily": JOB},
            ad_hoc=ad_hoc,
            database={"dsn": self.proxy.dsn, "pool_size": 4},
            http={"port": 0},
            **other,
        )

    @property
    def job(self) -> dict[str, object]:
        """The default job."""
        return dict(JOB)

    def sessions(self, name: str = "flow-outcomes%") -> list[tuple[object, ...]]:
        """Return pid and application_name of the program's sessions."""
        return self.run(
            "SELECT pid, application_name FROM pg_stat_activity"
            f" WHERE datname = '{self.name}' AND application_name LIKE '{name}'"
        )

"""A PostgreSQL to stop and break, and a program that works on it through a proxy."""

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


LONG_FORM = partial(pytest.param, marks=pytest.mark.chaos)  # for `make chaos`: the run has a like of it


class Server:
    """A server that may be stopped, and comes back on another port."""

    def __init__(self, folder: Path) -> None:
        self._embedded = Embedded(folder, durable=False)
        self.dsn = self._embedded.start()

    def start(self) -> None:
        """Start it again; nothing where it runs."""
        if self._embedded._server is None:
            self.dsn = self._embedded.start()

    def stop(self) -> None:
        """Stop it in order, sessions broken off."""
        self._embedded.stop()

    def crash(self) -> None:
        """Stop it as a failure of power would, but for what the disk has."""
        assert self._embedded._server is not None
        self._embedded._server.send_signal(IMMEDIATE)
        self._embedded.stop()

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser."""
        with psycopg.connect(url(self.dsn, database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class Site:
    """A database of a test's own on the server, the way to it, and the program on it.

    Attributes:
        server: where the database is.
        name: the database's.
        proxy: the program's way there.
        program: what is tested.
    """

    def __init__(self, server: Server, name: str, proxy: Proxy, program: Program) -> None:
        self.server = server
        self.name = name
        self.proxy = proxy
        self.program = program

    @property
    def dsn(self) -> str:
        """Of the database itself, past the proxy."""
        return url(self.server.dsn, self.name)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement in the database as the superuser."""
        return self.server.run(statement, self.name)

    def up(self) -> None:
        """Start the server again."""
        self.server.start()
        self.program.dsn = self.dsn
        self.proxy.lead_to(self.dsn)

    def configure(
        self,
        simulator: Simulator,
        *,
        orgs: Mapping[str, Mapping[str, object]] | None = None,
        jobs: Mapping[str, object] | None = None,
        ad_hoc: Mapping[str, object] | None = None,
        **other: object,
    ) -> None:
        """Each org works off the last days, one page after the other, on this database."""
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
        """The one job."""
        return dict(JOB)

    def sessions(self, name: str = "flow-outcomes%") -> list[tuple[object, ...]]:
        """The program's connections, as the server sees them: pid and application_name."""
        return self.run(
            "SELECT pid, application_name FROM pg_stat_activity"
            f" WHERE datname = '{self.name}' AND application_name LIKE '{name}'"
        )

"""A PostgreSQL that these tests stop and break, behind a proxy that can cut connections."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from service.postgres.migrate import migrate
from tests.support.databases import TEMPLATE, url
from tests.support.fault_harness import BreakableServer, FaultHarness
from tests.support.program import Program
from tests.support.proxy import Proxy

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def fragile_server() -> Iterator[BreakableServer]:
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-faults-"))
    server = BreakableServer(folder)
    server.run(f"CREATE DATABASE {TEMPLATE}")
    migrate(make_conninfo(server.dsn, dbname=TEMPLATE))
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def site(tmp_path: Path, fragile_server: BreakableServer) -> AsyncIterator[FaultHarness]:
    """A running server, a current schema and empty tables."""
    fragile_server.start()
    name = f"fault_{next(_numbers)}"
    fragile_server.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    async with Proxy(url(fragile_server.dsn, name)) as proxy, Program(tmp_path, proxy.dsn) as program:
        program.dsn = url(fragile_server.dsn, name)
        yield FaultHarness(fragile_server, name, proxy, program)
    fragile_server.start()
    fragile_server.run("ALTER SYSTEM RESET ALL")
    fragile_server.run("SELECT pg_reload_conf()")
    fragile_server.run(f"DROP DATABASE {name} WITH (FORCE)")

"""A real PostgreSQL for the test run, and a new database for each test that uses one."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings
from psycopg.conninfo import make_conninfo

from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate
from tests.support.databases import TEMPLATE, url
from tests.support.fake_clock import FakeClock

settings.register_profile("default", deadline=None)  # a loaded machine is slow at times
settings.load_profile("default")

KINDS = ("unit", "integration", "acceptance", "migrations", "browser", "engines", "faults")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder."""
    root = Path(__file__).parent
    for item in items:
        kind = item.path.relative_to(root).parts[0]
        if kind in KINDS:
            item.add_marker(kind)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that count days while yesterday has ended and is not due: the delay is an hour at least."""
    if item.get_closest_marker("counts_days") and datetime.now(UTC).time() < time(1, 2):
        pytest.skip("yesterday is not due before 01:00 UTC: run it again then")


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that the server's user can access, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-test-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(server_folder: Path) -> Iterator[str]:
    """The DSN of a PostgreSQL that all tests of this process share; pytest-xdist starts one per worker."""
    with Embedded(server_folder, durable=False) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def _databases(server: str) -> Iterator[tuple[psycopg.Connection[tuple[object, ...]], Iterator[int]]]:
    with psycopg.connect(server, autocommit=True) as connection:
        yield connection, itertools.count(1)


@pytest.fixture(scope="session")
def _template(_databases: tuple[psycopg.Connection[tuple[object, ...]], Iterator[int]], server: str) -> str:
    connection, _ = _databases
    connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(make_conninfo(server, dbname=TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database(
    _databases: tuple[psycopg.Connection[tuple[object, ...]], Iterator[int]], _template: str, server: str
) -> Iterator[str]:
    """The DSN of a new database for this test, with the current schema and empty tables."""
    yield from _create_database(_databases, server, _template)


@pytest.fixture
def empty_database(
    _databases: tuple[psycopg.Connection[tuple[object, ...]], Iterator[int]], server: str
) -> Iterator[str]:
    """The DSN of a new, empty database for this test."""
    yield from _create_database(_databases, server, "template0")


def _create_database(
    databases: tuple[psycopg.Connection[tuple[object, ...]], Iterator[int]], server: str, template: str
) -> Iterator[str]:
    connection, numbers = databases
    name = f"test_{next(numbers)}"
    connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield url(server, name)
    finally:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

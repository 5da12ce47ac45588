"""PostgreSQL settings by DSN, environment, role or database do not change what is stored, shown or exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote, urlencode

import duckdb
import psycopg
import pytest

from service.clock import SystemClock
from service.postgres.export.relations import FLOW_OUTCOME
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import assert_exact
from tests.support.export_harness import ordered, read
from tests.support.fake_clock import FakeClock
from tests.support.program import Ended, Program, figures, today

SOURCES = ("DSN", "environment", "role", "database")
CLIENT = {"client_encoding": "LATIN1", "datestyle": "German, DMY", "timezone": "Asia/Kolkata"}
"""Settings for which libpq has its own parameters and variables."""
OTHER = {
    "intervalstyle": "sql_standard",
    "extra_float_digits": "-12",
    "search_path": "public",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "exit_on_error": "on",
    "idle_in_transaction_session_timeout": "1",
}
VARIABLES = {"client_encoding": "PGCLIENTENCODING", "datestyle": "PGDATESTYLE", "timezone": "PGTZ"}


class CustomSettings:
    """PostgreSQL settings that apply to the program's sessions.

    Args:
        database: the DSN of the database.
        origin: where they are set: ``DSN``, ``environment``, ``role`` or ``database``.
        settings: the settings.

    Attributes:
        dsn: the DSN for the program.
        environment: the environment variables for the program.
    """

    def __init__(self, database: str, origin: str, settings: Mapping[str, str]) -> None:
        self._database, self._origin, self._settings = database, origin, settings
        self.dsn, self.environment = database, {}
        named = {name: value for name, value in settings.items() if name in CLIENT}
        options = " ".join(
            f"-c {name}={value.replace(' ', '')}" for name, value in settings.items() if name not in CLIENT
        )
        if origin == "DSN":
            encoding = named.pop("client_encoding", None)
            all_options = " ".join(
                (options, *(f"-c {name}={value.replace(' ', '')}" for name, value in named.items()))
            )
            given = {"options": all_options} | ({} if encoding is None else {"client_encoding": encoding})
            self.dsn = f"{database}?{urlencode(given, quote_via=quote)}"
        elif origin == "environment":
            self.environment = {VARIABLES[name]: value for name, value in named.items()}
            self.environment |= {"PGOPTIONS": options} if options else {}

    def set(self) -> None:
        """Set them for the role or the database."""
        self._alter(*(f"SET {name} TO {self._value(value)}" for name, value in self._settings.items()))

    def reset(self) -> None:
        """Reset the settings of the role or the database."""
        self._alter("RESET ALL")

    def _alter(self, *changes: str) -> None:
        if self._origin not in ("role", "database"):
            return
        name = self._database.rpartition("/")[2]
        whose = f"DATABASE {name}" if self._origin == "database" else f"ROLE flow_outcomes IN DATABASE {name}"
        with psycopg.connect(self._database.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
            for change in changes:
                connection.execute(f"ALTER {whose} {change}".encode())

    @staticmethod
    def _value(value: str) -> str:
        return ", ".join(f"'{each}'" for each in value.split(", "))


@pytest.fixture
def source() -> Simulator:
    org = SimulatedOrg(requests_per_second=None, flows=8)
    return Simulator(SimulatorConfig(orgs={"acme": org}), clock=FakeClock(SystemClock().now()))


def job(days: int) -> dict[str, object]:
    return {"daily": {"since": today().date() - timedelta(days=days), "granularity": "daily", "off_peak": None}}


def assert_success(ended: Ended) -> None:
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err + ended.out


@pytest.mark.parametrize("origin", SOURCES)
async def test_settings_do_not_change_results(
    empty_database: str, tmp_path: Path, source: Simulator, origin: str
) -> None:
    """Figures are exact, and a later run without these settings restates nothing."""
    settings = CustomSettings(empty_database, origin, CLIENT | OTHER)
    async with source, Program(tmp_path, settings.dsn) as program:
        settings.set()
        program.configure(source, jobs=job(20))
        for command in (["migrate"], ["check"], ["run", "--once"], ["plan"], ["rejected"]):
            assert_success(await program.run(*command, environment=settings.environment))
        ended = await program.run("status", "--json", environment=settings.environment)
        assert_success(ended)
        assert json.loads(ended.out)["orgs"]["acme"]["jobs"]["daily"]["gaps"] == []
        folder = tmp_path / "export"
        assert_success(await program.run("export", "--parquet", str(folder), environment=settings.environment))
        settings.reset()
        program.dsn = empty_database
        assert_exact(program, source)
        assert any(not name.isascii() for _, _, name in program.stored("acme", "daily"))
        assert_exported_exactly(program, folder)
        before = figures(program.stored("acme", "daily"))
        program.configure(source, jobs=job(20))
        assert_success(await program.run("backfill", "--org", "acme", *span(20)))
        assert figures(program.stored("acme", "daily")) == before
        assert program.rows("SELECT count(*) AS n FROM flow_outcomes.restatement") == [{"n": 0}]


def span(days: int) -> list[str]:
    past = datetime.now(UTC).date()
    first: date = past - timedelta(days=days)
    return ["--from", first.isoformat(), "--to", past.isoformat(), "--granularity", "daily"]


def assert_exported_exactly(program: Program, folder: Path) -> None:
    """Assert that the exported rows equal the stored rows, to the last digit."""
    with duckdb.connect() as duck:
        exported = read(duck, f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)")
    stored = program.rows(f"SELECT {', '.join(FLOW_OUTCOME.column_names)} FROM flow_outcomes.flow_outcome")
    assert stored
    assert exported == ordered(row.values() for row in stored)


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("environment", "client_encoding"),
        ("environment", "datestyle"),
        ("role", "datestyle"),
        ("database", "intervalstyle"),
        ("role", "extra_float_digits"),
        ("database", "exit_on_error"),
    ],
)
async def test_one_setting_alone(
    empty_database: str, tmp_path: Path, source: Simulator, origin: str, name: str
) -> None:
    """Each setting alone does not change the results."""
    settings = CustomSettings(empty_database, origin, {name: (CLIENT | OTHER)[name]})
    async with source, Program(tmp_path, settings.dsn) as program:
        settings.set()
        program.configure(source, jobs=job(3))
        assert_success(await program.run("run", "--once", environment=settings.environment))
        folder = tmp_path / "export"
        assert_success(await program.run("export", "--parquet", str(folder), environment=settings.environment))
        settings.reset()
        assert_exact(program, source)
        assert_exported_exactly(program, folder)


async def test_invalid_libpq_variables(empty_database: str, tmp_path: Path, source: Simulator) -> None:
    """Invalid values in the environment are not sent to the server."""
    nonsense = {
        "PGCLIENTENCODING": "nonsense",
        "PGDATESTYLE": "nonsense",
        "PGTZ": "Mars/Phobos",
        "PGGEQO": "maybe",
    }
    async with source, Program(tmp_path, empty_database) as program:
        program.configure(source, jobs=job(3))
        assert_success(await program.run("run", "--once", environment=nonsense))
        assert_exact(program, source)


async def test_an_embedded_database_ignores_the_environment(
    tmp_path: Path, source: Simulator, server_folder: Path
) -> None:
    """Libpq variables for other servers do not apply to the embedded server."""
    others = {
        "PGTARGETSESSIONATTRS": "standby",
        "PGSSLMODE": "require",
        "PGHOSTADDR": "192.0.2.1",
        "PGCHANNELBINDING": "require",
        "PGCLIENTENCODING": "LATIN1",
    }
    async with source, Program(tmp_path, "") as program:
        program.configure(source, jobs=job(3), database={"embedded": str(server_folder / "embedded")})
        assert_success(await program.run("run", "--once", environment=others))
        ended = await program.run("status", "--json", environment=others)
        assert_success(ended)
        assert json.loads(ended.out)["orgs"]["acme"]["jobs"]["daily"]["windows"]["complete"] > 0


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_that_is_not_utf8(server: str, tmp_path: Path, source: Simulator, encoding: str) -> None:
    """It is rejected with the reason before anything is written or requested."""
    name = f"other_{encoding.lower()}"
    dsn = f"{server.rpartition('/')[0]}/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C'"
            " TEMPLATE template0".encode()
        )
    async with source, Program(tmp_path, dsn) as program:
        program.configure(source, jobs=job(3), http={"port": 0})
        for command, code in ((["check"], 1), (["migrate"], 2), (["run"], 2), (["run", "--once"], 2)):
            ended = await program.run(*command)
            assert ended.code == code, (command, ended)
            assert f"encoding is {encoding}: it must be UTF8" in ended.out + ended.err
            assert "Traceback" not in ended.out + ended.err
        assert program.rows("SELECT count(*) AS n FROM pg_namespace WHERE nspname = 'flow_outcomes'") == [{"n": 0}]
        assert not source.arrivals

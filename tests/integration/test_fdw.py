"""``flow-outcomes fdw``: a third database reads two installations as one, as docs/scaling.md describes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from service.cli import main
from service.model import FlowBucket, OutcomeRow
from service.postgres.embedded.binaries import server_user
from service.postgres.fdw import PASSWORD, RELATIONS, Installation, fdw_sql
from service.postgres.migrate import migrate
from service.postgres.pool import Database
from tests.support.cluster import ClusterServer, programs_with_fdw, temporary_folder
from tests.support.scan_harness import ScanHarness, day_span

ORGS = {"north": ["acme", "globex"], "south": ["initech"]}
TOTAL = "SELECT org, count(*), sum(outcome_count) FROM flow_outcomes.{} GROUP BY org ORDER BY org"


class Site:
    """A server with the two installations and the database that reads both."""

    def __init__(self, server: ClusterServer) -> None:
        self.server = server

    def dsn(self, database: str) -> str:
        """The DSN of one of the databases."""
        return self.server.dsn.replace("/postgres", f"/{database}")

    def query(self, database: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The result of a query."""
        with psycopg.connect(self.dsn(database)) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def plan(self, query: str) -> str:
        """The plan of a query in the reading database."""
        return "\n".join(line for (line,) in self.query("reports", f"EXPLAIN (VERBOSE, COSTS OFF) {query}"))


async def fill(dsn: str, orgs: list[str]) -> None:
    """Two versions of each figure."""
    pool = Database(dsn, size=2, application_name="test")
    await pool.open()
    for org in orgs:
        harness = ScanHarness(dsn, pool, org)
        await harness.create_org()
        for version in range(2):
            counts = {day: len(org) + day + version for day in range(5)}
            rows = [OutcomeRow(FlowBucket("f", *day_span(day)), "a", n, None, False) for day, n in counts.items()]
            await harness.store_days(range(5), rows)
    await pool.close()


@contextmanager
def site_of(home: Path) -> Iterator[Site]:
    user = server_user(home)
    folder = home / "data"
    user.make(folder)
    server = ClusterServer(programs_with_fdw(), user, folder / "cluster")
    server.create()
    server.start()
    try:
        site = Site(server)
        for database in (*ORGS, "reports"):
            server.run(f"CREATE DATABASE {database}")
        for database, orgs in ORGS.items():
            migrate(site.dsn(database))
            asyncio.run(fill(site.dsn(database), orgs))
        installations = [Installation(name, site.dsn(name), orgs) for name, orgs in ORGS.items()]
        with psycopg.connect(site.dsn("reports"), autocommit=True) as connection:
            connection.execute(fdw_sql(installations).encode())
        yield site
    finally:
        server.stop()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    programs_with_fdw()
    with temporary_folder("flow-outcomes-fdw-") as home, site_of(home) as site:
        yield site


def test_each_relation_has_the_rows_of_both(site: Site) -> None:
    """With the columns and types of the views."""
    columns = (
        "SELECT attname, atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum"
    )
    for relation in RELATIONS:
        name = f"flow_outcomes.{relation}"
        assert site.query("reports", columns, name) == site.query("north", columns, name)
        rows = [row for database in ORGS for row in site.query(database, f"SELECT * FROM {name}")]
        assert sorted(map(str, site.query("reports", f"SELECT * FROM {name}"))) == sorted(map(str, rows))
    assert len(site.query("reports", "SELECT * FROM flow_outcomes.restatement")) == 15


def test_an_aggregate_by_org_is_computed_in_each_database(site: Site) -> None:
    """Side by side, and only its result is sent."""
    plan = site.plan(TOTAL.format("flow_outcome").removesuffix(" ORDER BY org"))
    assert plan.count("Async Foreign Scan") == plan.count("Relations: Aggregate on") == 2
    assert site.query("reports", TOTAL.format("flow_outcome")) == [
        (org, 5, sum(len(org) + day + 1 for day in range(5))) for org in ("acme", "globex", "initech")
    ]


def test_one_org_is_read_from_its_database_alone(site: Site) -> None:
    """Also as of an instant, which is compared there, whatever expression it is."""
    for source in ("flow_outcome", "flow_outcome_as_of(now())", "flow_outcome_as_of('2024-04-01')"):
        plan = site.plan(f"SELECT * FROM flow_outcomes.{source} WHERE org = 'initech'")
        assert "Filter" not in plan
        assert "as_of" not in source or plan.count("((valid_") == 2
        assert plan.count("Foreign Scan") == 1
        assert "flow_outcomes_2." in plan


def test_figures_as_of_an_instant(site: Site) -> None:
    """As each database gives them, at each revision and between, and computed there."""
    stamps = [at for name in ORGS for (at,) in site.query(name, "SELECT stamped_at FROM flow_outcomes.revision")]
    assert len(stamps) == 6
    query = "SELECT * FROM flow_outcomes.flow_outcome_as_of(%s) ORDER BY org, bucket_start"
    for at in stamps:
        expected = sorted(row for name in ORGS for row in site.query(name, query, at))
        assert sorted(site.query("reports", query, at)) == expected
    assert site.query("reports", query, min(stamps).replace(year=2020)) == []
    plan = site.plan(TOTAL.format("flow_outcome_as_of(now())").removesuffix(" ORDER BY org"))
    assert plan.count("Relations: Aggregate on") == 2


def test_orgs_that_no_configuration_names(site: Site) -> None:
    """One that only a database holds is read with it; one that two databases hold is an error, not read twice."""

    def create(**orgs: list[str]) -> None:
        site.server.run("CREATE DATABASE again")
        installations = [Installation(name, site.dsn(name), named) for name, named in orgs.items()]
        with psycopg.connect(site.dsn("again"), autocommit=True) as connection:
            connection.execute(fdw_sql(installations).encode())

    try:
        create(north=["acme"], south=["initech"])
        count = "SELECT count(*) FROM flow_outcomes.flow_outcome"
        assert site.query("again", count) == [(15,)]
        assert site.query("again", f"{count} WHERE org = 'globex'") == [(5,)]
        site.server.run("DROP DATABASE again")
        with pytest.raises(psycopg.errors.RaiseException, match=r"flow_outcomes_1 holds .* names: globex"):
            create(north=["acme"], south=["initech", "globex"])
    finally:
        site.server.run("DROP DATABASE IF EXISTS again")


def test_a_database_that_does_not_answer(site: Site) -> None:
    """An error within seconds, as from one that is down; the other orgs are read."""
    with socket.create_server(("127.0.0.1", 0)) as silent, psycopg.connect(site.dsn("reports")) as connection:
        former, port = site.server.port, silent.getsockname()[1]
        move = "ALTER SERVER flow_outcomes_2 OPTIONS (SET port '{}', SET connect_timeout '2')"
        connection.execute(move.format(port).encode())
        connection.commit()
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="timeout expired"):
            connection.execute(TOTAL.format("flow_outcome").encode())
        assert time.monotonic() - began < 20
        connection.rollback()
        [(rows,)] = connection.execute("SELECT count(*) FROM flow_outcomes.flow_outcome WHERE org = 'acme'")
        assert rows == 5
        connection.execute(move.format(former).encode())


def configuration(folder: Path, name: str, orgs: list[str], **database: str) -> str:
    client = {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-client-secret"}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"database": database, "orgs": dict.fromkeys(orgs, client)}))
    return str(file)


def run(*files: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["fdw", *(argument for file in files for argument in ("--config", file))])
    return code, out.getvalue(), err.getvalue()


def test_passwords_are_placeholders(tmp_path: Path) -> None:
    """Everything else of the address is there, quoted."""
    dsn = "postgresql://daemon:a-secret-word@db1,db2:6000/it's?sslmode=require&options=-cwork_mem%3D1MB"
    code, out, err = run(
        configuration(tmp_path, "north", ["acme", "globex"], dsn=dsn),
        configuration(tmp_path, "south", ["initech"], dsn="host=db3 user=daemon tcp_user_timeout=7"),
    )
    assert (code, err) == (0, "")
    assert "a-secret-word" not in out
    assert out.count(f"user 'daemon', password '{PASSWORD}'") == 2
    for option in ("host 'db1,db2'", "dbname 'it''s'", "sslmode 'require'", "host 'db3'", "async_capable 'true'"):
        assert option in out
    assert out.count("connect_timeout '5'") == 2
    assert out.count("tcp_user_timeout '7'") == out.count("tcp_user_timeout '20000'") == 1
    assert "work_mem" not in out
    assert "named    text[] := ARRAY['acme', 'globex']" in out


def test_an_org_in_two_configurations(tmp_path: Path) -> None:
    """Exit 2, and every fault of every file at once."""
    code, out, err = run(
        configuration(tmp_path, "north", ["acme", "globex"], dsn="postgresql://db/north"),
        configuration(tmp_path, "south", ["globex"], embedded="/srv/data"),
        configuration(tmp_path, "west", ["Acme"], dsn="postgresql://db/west"),
    )
    assert (code, out) == (2, "")
    first, second, *third = err.splitlines()
    assert first.endswith("south.yaml: database.dsn: is required: an embedded PostgreSQL has no address")
    assert "south.yaml: orgs.globex: is also in " in second
    assert third
    assert all("west.yaml: orgs" in line for line in third)

"""What docs/operating.md tells to type, typed: the time zone, the role, the way back, the backup."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import psycopg
import pytest

from service.config import Export
from service.export.exporter import export
from service.model import FlowBucket, OutcomeRow, Span
from service.postgres.embedded import binaries
from service.postgres.migrate import known_migrations, migrate, pending_migrations
from service.postgres.pool import Database
from service.postgres.probe import inspect, open_connection
from tests.support import documents
from tests.support.export_harness import catalog_in
from tests.support.scan_harness import ScanHarness

TEXT = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
BERLIN = ZoneInfo("Europe/Berlin")
MARCH = datetime(2024, 3, 1, tzinfo=UTC)
UTC_DAYS = [Span(MARCH + timedelta(days=day), MARCH + timedelta(days=day + 1)) for day in range(40)]
LOCAL = [
    datetime(2024, 3, 1, tzinfo=BERLIN) + timedelta(days=day) for day in range(41)
]  # summer begins in between
LOCAL_DAYS = [Span(a.astimezone(UTC), b.astimezone(UTC)) for a, b in pairwise(LOCAL)]
DAYS = "SELECT count(*), sum(outcome_count) FROM flow_outcomes.flow_outcome"


def blocks(heading: str, language: str) -> list[str]:
    """The commands under a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


def shell(command: str, **variables: str) -> str:
    """Run a block as a user would, with this project's python and a server's programs at hand."""
    path = f"{Path(sys.executable).parent}:{binaries.installed()}:/usr/bin:/bin"
    done = subprocess.run(
        ["/bin/bash", "-euc", command],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(days: list[Span], count: int) -> list[OutcomeRow]:
    return [OutcomeRow(FlowBucket("billing", *day), "Paid", count, None, rejected=False) for day in days]


@pytest.fixture
async def desk(database: str) -> AsyncIterator[ScanHarness]:
    """An org's days as UTC cuts them."""
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    desk = ScanHarness(database, pool)
    await desk.create_org()
    await desk.store(UTC_DAYS, UTC_DAYS, rows(UTC_DAYS, 10))
    yield desk
    await pool.close()


async def test_the_time_zone_moves(desk: ScanHarness, tmp_path: Path) -> None:
    """The old days are gone from the present and stand in the past, and an export follows."""
    warehouse = Export(warehouse=f"file://{tmp_path}/warehouse")
    await export(desk.dsn, warehouse)
    [(before,)] = await desk.rows("SELECT clock_timestamp()")
    [statements] = blocks("Moving the time zone", "sql")
    async with await psycopg.AsyncConnection.connect(desk.dsn, autocommit=True) as connection:
        await connection.execute(statements.encode())
    assert await desk.rows(DAYS) == [(0, None)]
    await desk.store(LOCAL_DAYS, LOCAL_DAYS, rows(LOCAL_DAYS, 11))
    assert await desk.rows(DAYS) == [(40, 440)]
    as_of = "SELECT count(*), sum(outcome_count) FROM flow_outcomes.flow_outcome_as_of(%s)"
    assert await desk.rows(as_of, before) == [(40, 400)]
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.extraction_window") == [(40,)]
    done = await export(desk.dsn, warehouse)
    assert done.tables["flow_outcome"].rows == 40
    assert catalog_in(desk.dsn).load_table("flow_outcomes.flow_outcome").scan().to_arrow().num_rows == 40


@pytest.mark.usefixtures("desk")
async def test_a_role_of_its_own(database: str) -> None:
    """The rights that are listed are those that a daemon is found to lack without them."""
    name = f"outcomes_{os.getpid()}"
    [grants] = blocks("The schema", "sql")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'outcomes'".encode())
        try:
            given = psycopg.conninfo.make_conninfo(database, user=name, password="outcomes")
            async with open_connection(given, "test", timeout=10) as look:
                assert (await inspect(look)).missing_privileges
            grants = re.sub(r"\boutcomes;", f"{name};", grants)
            connection.execute(grants.replace("DATABASE reports", f"DATABASE {connection.info.dbname}").encode())
            async with open_connection(given, "test", timeout=10) as look:
                assert (await inspect(look)).missing_privileges == []
            pool = Database(given, size=1, application_name="test")
            await pool.open()
            await ScanHarness(given, pool).store(UTC_DAYS[:1], UTC_DAYS[:1], rows(UTC_DAYS[:1], 12))
            await pool.close()
        finally:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


async def test_old_months_go(desk: ScanHarness, tmp_path: Path) -> None:
    """The first command changes nothing; the second removes March and keeps April."""
    config = tmp_path / "flow-outcomes.yaml"
    org = {"region": "mypurecloud.com", "client_id": "c", "client_secret": "a-secret"}
    config.write_text(json.dumps({"database": {"dsn": desk.dsn}, "orgs": {"acme": org}}))
    show, remove = (
        shell(block.text, FLOW_OUTCOMES_CONFIG=str(config))
        for block in documents.blocks("docs/operating.md", "Removing old months", "sh")
    )
    assert "would remove 31 figures, 0 previous versions and 31 windows before 2024-04-01" in show
    assert "removed 31 figures" in remove
    assert await desk.rows(DAYS) == [(9, 90)]
    assert await desk.rows("SELECT count(*) FROM flow_outcomes.extraction_window") == [(9,)]


def test_the_way_back(database: str) -> None:
    """The command takes back what came after the named migration, and a newer version brings it up again."""
    [command] = blocks("The schema", "sh")
    told = shell(command, DSN=database).split()
    assert told == known_migrations()[: known_migrations().index("0005_create_coverage") : -1]
    assert pending_migrations(database) == told[::-1]
    assert migrate(database) == told[::-1]


async def test_backup_and_restore(desk: ScanHarness, empty_database: str, tmp_path: Path) -> None:
    """A dump gives the same figures, then and now, in another database, and its schema is current."""
    [command] = blocks("Backup", "sh")
    await desk.store(UTC_DAYS[:1], UTC_DAYS[:1], rows(UTC_DAYS[:1], 12))
    shell(f"cd {tmp_path}\n{command}", DSN=desk.dsn, EMPTY_DSN=empty_database)
    assert pending_migrations(empty_database) == []
    other = ScanHarness(empty_database, desk.database)
    for query in (
        "SELECT * FROM flow_outcomes.flow_outcome ORDER BY 4",
        "SELECT * FROM flow_outcomes.restatement",
    ):
        assert await other.rows(query) == await desk.rows(query)
    pool = Database(empty_database, size=1, application_name="test")
    await pool.open()
    later = ScanHarness(empty_database, pool)
    later.scans = desk.scans
    await later.store(UTC_DAYS[:1], UTC_DAYS[:1], rows(UTC_DAYS[:1], 13))
    await pool.close()
    assert await other.rows(DAYS) == [(40, 403)]

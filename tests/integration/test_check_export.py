"""``check`` and the export: the catalog, the warehouse, what is not tried, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import boto3
import psycopg
import pytest

from service.config import Config, Export, config_from
from service.model import Finding, State
from service.runtime import export_check
from service.runtime.export_check import export_findings
from tests.support.export_harness import ExportHarness, two_orgs
from tests.support.object_storage import running_moto

PATIENCE = 60.0  # seconds
SECRET = "a-secret-of-the-catalog"


def configured(**export: object) -> Config:
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    return config_from({"database": {"dsn": "postgresql://127.0.0.1/x"}, "orgs": {"acme": org}, "export": export})


async def check(dsn: str | None, **export: object) -> list[Finding]:
    return await export_findings(configured(**export), dsn)


def states(findings: list[Finding]) -> list[tuple[str, State]]:
    return [(each.subject, each.state) for each in findings]


BOTH = [("export catalog", State.OK), ("export warehouse", State.OK)]


async def test_in_order(database: str, tmp_path: Path) -> None:
    """A catalog in the database and a folder, in a new installation; neither the tables nor the folder stay."""
    assert states(await check(database, warehouse=f"file://{tmp_path}/a/b")) == BOTH
    assert not (tmp_path / "a").exists()
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regclass('flow_outcomes.iceberg_tables')").fetchone() == (None,)


async def test_beside_an_export(database: str, tmp_path: Path) -> None:
    """Where tables exist, they are as before."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        await place.export()
        before = place.on_disk(), await catalog_rows(place)
        assert states(await check(database, warehouse=f"file://{place.folder}")) == BOTH
        assert (place.on_disk(), await catalog_rows(place)) == before


async def catalog_rows(place: ExportHarness) -> list[object]:
    return [
        *await place.acme.rows("SELECT * FROM flow_outcomes.iceberg_tables ORDER BY table_name"),
        *await place.acme.rows("SELECT * FROM flow_outcomes.iceberg_namespace_properties"),
    ]


async def test_a_role_that_may_not_write_the_catalog(database: str, tmp_path: Path) -> None:
    """The rehearsal needs the privileges of an export."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        await place.export()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS check_export_reader")
        connection.execute("CREATE ROLE check_export_reader")
        connection.execute("GRANT USAGE ON SCHEMA flow_outcomes TO check_export_reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA flow_outcomes TO check_export_reader")
        try:
            dsn = f"{database}{'&' if '?' in database else '?'}options=-crole%3Dcheck_export_reader"
            [catalog, warehouse] = await check(dsn, warehouse=f"file://{tmp_path}/warehouse")
        finally:
            connection.execute("DROP OWNED BY check_export_reader")
            connection.execute("DROP ROLE check_export_reader")
    assert (catalog.state, warehouse.state) == (State.FAILED, State.OK)
    assert "permission denied for table iceberg" in catalog.detail


async def test_what_is_not_tried(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reported without a warehouse; what needs the extra, or a database that fails, is skipped."""
    config = configured(warehouse=f"file://{tmp_path}/warehouse")
    assert await export_findings(config.model_copy(update={"export": None}), database) == []
    [catalog, warehouse] = await export_findings(config, None)
    assert (catalog.state, warehouse.state) == (State.SKIPPED, State.OK)
    assert catalog.fix
    monkeypatch.setitem(sys.modules, "pyiceberg", None)
    [finding] = await export_findings(config, database)
    assert (finding.state, finding.detail) == (State.SKIPPED, "not checked: it needs pyiceberg")
    assert "pip install '.[export]'" in finding.fix
    assert "requirements-export.txt" in finding.fix


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/catalog", "OperationalError"),
        ("sqlite:////nowhere/at/all/catalog.db", "unable to open database file"),
        ("nonsense://somewhere", "NoSuchModuleError"),
    ],
)
async def test_a_catalog_that_fails(database: str, tmp_path: Path, uri: str, reason: str) -> None:
    """The reason has no password; the warehouse is tried all the same."""
    config = {"catalog": {"type": "sql", "uri": uri}, "warehouse": f"file://{tmp_path}/warehouse"}
    [catalog, warehouse] = await check(database, **config)
    assert (catalog.state, warehouse.state) == (State.FAILED, State.OK)
    assert reason in catalog.detail
    assert SECRET not in str(catalog)
    assert catalog.fix


async def test_a_folder_that_cannot_be_written(database: str, tmp_path: Path) -> None:
    """A file is where the folder should be."""
    (tmp_path / "file").write_text("")
    [catalog, warehouse] = await check(database, warehouse=f"file://{tmp_path}/file/warehouse")
    assert (catalog.state, warehouse.state) == (State.OK, State.FAILED)
    assert "this user may write there" in warehouse.fix


async def test_object_storage(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket, with nothing left in it; and one that does not exist."""
    with running_moto(monkeypatch) as url:
        catalog = {"type": "glue", "s3.endpoint": url, "s3.region": "us-east-1"}
        catalog |= {"glue.endpoint": url, "glue.region": "us-east-1"}
        found = await check(database, catalog=catalog, warehouse="s3://lake/flow")
        assert states(found) == BOTH
        assert "creates the namespace flow_outcomes" in found[0].detail
        left = [each.key for each in boto3.resource("s3", endpoint_url=url).Bucket("lake").objects.all()]
        assert left == ["flow/"]  # pyarrow's marker of a folder
        [_, warehouse] = await check(database, catalog=catalog, warehouse="s3://another/flow")
        assert warehouse.state is State.FAILED
        assert "s3://another/flow: " in warehouse.detail


async def test_a_catalog_that_does_not_respond(tmp_path: Path) -> None:
    """The process that waits for it is killed where nobody waits for the result any more."""
    connected, closed = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        while await reader.read(1000):
            pass
        closed.set()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        waiting = asyncio.create_task(
            check(None, catalog={"type": "rest", "uri": uri}, warehouse=f"file://{tmp_path}/warehouse")
        )
        await asyncio.wait_for(connected.wait(), PATIENCE)
        assert not closed.is_set()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(closed.wait(), PATIENCE)


async def test_no_response_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found until then is reported, and what has no result."""

    async def probes(*_: object) -> AsyncIterator[Finding]:
        yield Finding("export catalog", State.OK, "rest, reachable")
        await asyncio.Event().wait()

    monkeypatch.setattr(export_check, "run_probe", probes)
    monkeypatch.setattr(export_check, "TIMEOUT", 0.01)
    [catalog, warehouse] = await check(None, catalog={"type": "glue"}, warehouse=f"file://{tmp_path}/warehouse")
    assert (catalog.state, warehouse.state) == (State.OK, State.FAILED)
    assert warehouse.detail == "no response within 0 s"


async def test_a_process_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is the reason."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    [catalog] = await check(None, catalog={"type": "glue"}, warehouse=f"file://{tmp_path}/warehouse")
    assert (catalog.subject, catalog.state) == ("export catalog", State.FAILED)
    assert catalog.detail == "the export's process ended with 1: no message"


@pytest.mark.parametrize(
    ("catalog", "expected"),
    [({}, True), ({"type": "sql"}, True), ({"uri": "sqlite:///x"}, False), ({"type": "glue"}, False)],
)
def test_where_the_catalog_is(catalog: dict[str, str], *, expected: bool) -> None:
    """A SQL catalog without a uri is in the database."""
    config = Export.model_validate({"warehouse": "file:///x", "catalog": catalog})
    assert config.is_catalog_in_database is expected

"""Daft on Ray reads the tables with two workers: right results, and only the files that a query needs.

``make engines`` installs it. ``FLOW_OUTCOMES_ENGINE_ROWS=20000000 make engines`` reads as many rows.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from service.postgres.export import RELATIONS, Relation, Type
from service.postgres.export.relations import FLOW_OUTCOME
from tests.support.documents import blocks
from tests.support.export_harness import DAYS, EPOCH, ExportHarness, exported_measures, figures, ordered
from tests.support.program import Program

PYTHON = Path(".venv/daft/bin/python").absolute()
ROWS = int(os.environ.get("FLOW_OUTCOMES_ENGINE_ROWS", "200000"))
ORGS, NAMES, DAYS_STORED = 8, 10, 731  # of 2023 and 2024
MONTHS = 24
START_WITHIN, READ_WITHIN, STOP_WITHIN = 120.0, 900.0, 20.0  # seconds
LOCAL = {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "true", "RAY_USAGE_STATS_ENABLED": "0"}
DRIVER = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else the driver listens on every address

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="Daft is not installed: make engines")

SERIES = """
    INSERT INTO flow_outcomes.series (org, flow_id, source_key, reported_name, outcome_name, revision)
    SELECT 'org_' || org, md5(flow::text)::uuid::text, name, name, name, 1
    FROM generate_series(1, %(orgs)s) org, generate_series(1, %(flows)s) flow,
         (SELECT 'Outcome ' || number AS name FROM generate_series(1, %(names)s) number) names
"""
FIGURES = """
    INSERT INTO flow_outcomes.figure
        (org, granularity, series_no, bucket_start, bucket_end, state, outcome_count, extraction_timestamp,
         revision)
    SELECT o.org, 'daily', o.series_no, day, day + interval '1 day', 'reported', (o.series_no * day_no) %% 997,
           day + interval '26 hours', 1
    FROM (SELECT day_no, timestamptz '2023-01-01' + day_no * interval '1 day' AS day
          FROM generate_series(0, %(days)s - 1) day_no) days,
         flow_outcomes.series o
"""
REVISION = """
    INSERT INTO flow_outcomes.revision (org, revision, stamped_at)
    SELECT 'org_' || org, %(revision)s, now() FROM generate_series(1, %(orgs)s) org
"""
ORG = """
    INSERT INTO flow_outcomes.org (org, epoch, revision)
    SELECT 'org_' || org, 1, %(revision)s FROM generate_series(1, %(orgs)s) org
    ON CONFLICT (org) DO UPDATE SET revision = EXCLUDED.revision
"""
RESTATE = """
    UPDATE flow_outcomes.figure SET outcome_count = outcome_count + 1, revision = 2
    WHERE org = 'org_3' AND bucket_start = '2024-12-30'
"""
SUMS = """
    SELECT org, to_char(bucket_start, 'YYYY-MM'), count(*), sum(outcome_count)::bigint
    FROM flow_outcomes.flow_outcome GROUP BY 1, 2
"""


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """The address of a Ray cluster with two nodes of one core each."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        address = f"127.0.0.1:{port}"
        head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}")
        with _node(Path(folder) / "head.log", *head):
            _wait_for_port(port)
            with _node(Path(folder) / "worker.log", f"--address={address}"):
                yield address


@contextmanager
def _node(log: Path, *options: str) -> Iterator[None]:
    common = ("start", "--num-cpus=1", "--node-ip-address=127.0.0.1", "--disable-usage-stats", "--block")
    with log.open("w") as output:
        process = subprocess.Popen(
            [PYTHON, Path(__file__).with_name("ray_node.py"), *common, *options],
            env=os.environ | LOCAL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port)):
                return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """All tables of two orgs, exported."""
    async with exported_measures(database, tmp_path / "warehouse") as place:
        yield place


async def test_every_table(ray: str, place: ExportHarness, tmp_path: Path) -> None:
    """Every row is the view's, and a former export is read by its number."""
    former = await place.stored()
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
    await place.export()
    queries = [_query(relation) for relation in RELATIONS] + [_query(FLOW_OUTCOME, tag="export-1")]
    *tables, first = await _read(ray, place.acme.dsn, queries, tmp_path)
    for relation, answer in zip(RELATIONS, tables, strict=True):
        assert answer["rows"] == await place.stored(relation), relation.name
        assert answer["rows"]
    assert first["rows"] == former != tables[0]["rows"]


async def test_sums_and_pruning(ray: str, database: str, tmp_path: Path) -> None:
    """Sums of two exports are those of PostgreSQL, and one org's month is read from one file."""
    flows = math.ceil(ROWS / (ORGS * NAMES * DAYS_STORED))
    _store(
        database, ["SELECT flow_outcomes.ensure_partitions('2023-01-01', '2025-01-01')", SERIES, FIGURES], flows
    )
    _store(database, [REVISION, ORG, "VACUUM ANALYZE"], flows)
    async with Program(tmp_path, database) as program:
        _configure(program, tmp_path / "warehouse")
        took = [await _export(program)]
        before = _fetch(database, SUMS)
        _store(database, [RESTATE, REVISION, ORG], flows, revision=2)
        took.append(await _export(program))
        after = _fetch(database, SUMS)
    span = [f"2024-{month}-01T00:00:00+00:00" for month in ("11", "12")]
    queries = [
        _query(FLOW_OUTCOME, sums=True),
        _query(FLOW_OUTCOME, sums=True, tag="export-1"),
        _query(FLOW_OUTCOME, sums=True, org="org_3", span=span),
    ]
    everything, first, month = await _read(ray, database, queries, tmp_path)
    rows, outcomes = (sum(row[column] for row in after) for column in (2, 3))
    print(  # noqa: T201 - the result of a run
        f"engines: {rows:,} rows in {ORGS * MONTHS} files, sum {outcomes:,}; exported in {took[0]:.0f} s,"
        f" a month again in {took[1]:.1f} s; Daft on two workers: sums by org and month"
        f" {everything['seconds']:.1f} s, {everything['scan_tasks']} scan tasks; one org's month"
        f" {month['seconds']:.1f} s, {month['scan_tasks']} scan task"
    )
    assert everything["rows"] == after != before
    assert first["rows"] == before
    assert month["rows"] == [row for row in after if row[:2] == ("org_3", "2024-11")]
    assert (everything["scan_tasks"], month["scan_tasks"]) == (ORGS * MONTHS, 1)


def _store(dsn: str, statements: list[str], flows: int, *, revision: int = 1) -> None:
    values = {"orgs": ORGS, "names": NAMES, "days": DAYS_STORED, "flows": flows, "revision": revision}
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        for statement in statements:
            connection.execute(statement.encode(), values if "%(" in statement else None)


def _fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        return ordered(connection.execute(query.encode()).fetchall())


def _configure(program: Program, warehouse: Path) -> None:
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-client-secret"}
    tree = {
        "database": {"dsn": program.dsn},
        "orgs": {f"org_{number}": org for number in range(1, ORGS + 1)},
        "export": {"warehouse": f"file://{warehouse}"},
    }
    program.config.write_text(yaml.safe_dump(tree))


async def _export(program: Program) -> float:
    began = time.monotonic()
    running = await program.start("export")
    code = await running.process.wait()
    assert code == 0, running.err
    return time.monotonic() - began


def _query(relation: Relation, **keys: object) -> dict[str, Any]:
    instants = [column.name for column in relation.columns if column.type is Type.INSTANT]
    return {"table": relation.name, "columns": relation.column_names, "instants": instants, **keys}


async def test_the_page(ray: str, place: ExportHarness, tmp_path: Path) -> None:
    """The code of docs/scaling.md reads one org."""
    [page] = blocks("docs/scaling.md", "Several machines that read", "python")
    code = re.sub(r'uri="\S+"', f"uri={_catalog(place.acme.dsn)!r}", page.text).replace(
        "ray.example.com:6379", ray
    )
    script = tmp_path / "page.py"
    script.write_text(f'{code}\nprint("rows", len(rows["org"]), set(rows["org"]))\n')
    out = await _run(script)
    assert "Num Scan Tasks = " in out
    rows = [row for row in await place.stored() if row[0] == "acme"]
    assert f"rows {len(rows)} {{'acme'}}" in out


async def _read(ray: str, dsn: str, queries: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run the queries in Daft's environment, on two nodes."""
    order = folder / "order.json"
    order.write_text(json.dumps({"address": ray, "nodes": 2, "catalog": _catalog(dsn), "queries": queries}))
    out = await _run(Path(__file__).with_name("read_with_daft.py"), order)
    *answers, nodes = [json.loads(line) for line in out.splitlines() if line.startswith(('{"rows"', '{"nodes"'))]
    assert nodes == {"nodes": 2}
    for answer, query in zip(answers, queries, strict=True):
        names = query["columns"] if not query.get("sums") else ()
        answer["rows"] = ordered(_values(row, names, query["instants"]) for row in answer["rows"])
    return answers


def _catalog(dsn: str) -> str:
    uri = dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    return f"{uri}{'&' if '?' in uri else '?'}options=-csearch_path%3Dflow_outcomes"


async def _run(*command: Path) -> str:
    """The standard output of a script in Daft's environment."""
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        *command,
        env=os.environ | LOCAL | DRIVER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=command[-1].parent,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), READ_WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-4000:]
    return out.decode()


def _values(row: list[Any], names: tuple[str, ...], instants: list[str]) -> list[Any]:
    """The values as the database returns them."""
    if not names:
        return row
    return [
        EPOCH + timedelta(microseconds=value) if name in instants and value is not None else value
        for name, value in zip(names, row, strict=True)
    ]

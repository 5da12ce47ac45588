"""Spark reads the tables through the SQL catalog, with the settings of docs/warehouses.md.

It runs in an environment of its own, with a Java runtime, Iceberg's runtime, which is in a wheel of Snowflake's,
and PostgreSQL's JDBC driver. On Debian::

    apt-get install default-jre-headless libpostgresql-jdbc-java
    make engines
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from service.postgres.export import RELATIONS, Relation, Type
from service.postgres.export.relations import FLOW_OUTCOME
from tests.support.documents import blocks
from tests.support.export_harness import (
    DAYS,
    EPOCH,
    ExportHarness,
    exported_measures,
    figures,
    ordered,
)

ENVIRONMENT = Path(".venv/spark").absolute()
DRIVER = Path("/usr/share/java/postgresql.jar")
PAGE = "docs/warehouses.md"
CATALOG = "flow_outcomes"
RUN_WITHIN = 300.0  # seconds


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """All tables of two orgs, exported."""
    async with exported_measures(database, tmp_path / "warehouse") as place:
        yield place


async def test_every_table(place: ExportHarness, tmp_path: Path) -> None:
    """Every row is the view's, a former export is read by its tag, and Iceberg plans by org and month."""
    jars = installed()
    former = await place.stored()
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
    assert (await place.export()).tables[FLOW_OUTCOME.name].files == 1
    [page] = blocks(PAGE, "Spark", "sh")
    tagged = re.search(r'-e "(.+)"', page.text)
    assert tagged is not None
    january = "WHERE org = 'acme' AND granularity = 'daily' AND bucket_start < TIMESTAMP '2024-02-01 00:00:00'"
    answers = await spark(
        settings_of(page.text, place, jars),
        [
            *(query(relation, f"SELECT * FROM {CATALOG}.flow_outcomes.{relation.name}") for relation in RELATIONS),
            query(FLOW_OUTCOME, tagged[1]),
            query(FLOW_OUTCOME, f"SELECT * FROM {CATALOG}.flow_outcomes.flow_outcome {january}"),
        ],
        tmp_path,
    )
    *tables, at_the_first, filtered = [rows_of(answer) for answer in answers]
    for relation, rows in zip(RELATIONS, tables, strict=True):
        assert rows == await place.stored(relation), relation.name
        assert rows
    assert at_the_first == former != tables[0]
    start = FLOW_OUTCOME.column_names.index("bucket_start")
    assert filtered == [row for row in tables[0] if row[0] == "acme" and row[start] < DAYS[31].start]
    assert "org = 'acme'" in answers[-1]["plan"]


def installed() -> list[str]:
    """The jars; the test is skipped where something is missing."""
    runtimes = [*ENVIRONMENT.glob("lib/*/site-packages/*/jars/iceberg-spark-runtime-3.5_2.12-*.jar")]
    missing = [
        name
        for name, found in (
            ("java", shutil.which("java")),
            (str(DRIVER), DRIVER.exists()),
            ("pyspark and Iceberg's runtime in .venv/spark", runtimes),
        )
        if not found
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: see {__name__}")
    return [str(runtimes[0]), str(DRIVER)]


def settings_of(page: str, place: ExportHarness, jars: Sequence[str]) -> dict[str, str]:
    """The page's settings, with this database and folder in place of the bucket."""
    words = shlex.split(page.replace("\\\n", " "))
    given = dict(word.split("=", 1) for word in words if word.startswith("spark."))
    dsn = conninfo_to_dict(place.acme.dsn)
    replaced = {
        "uri": f"jdbc:postgresql://{dsn['host']}:{dsn['port']}/{dsn['dbname']}?currentSchema=flow_outcomes",
        "jdbc.user": str(dsn["user"]),
        "warehouse": f"file://{place.folder}",
        "io-impl": "org.apache.iceberg.hadoop.HadoopFileIO",
    }
    prefix = f"spark.sql.catalog.{CATALOG}"
    assert {f"{prefix}.{name}" for name in replaced} <= given.keys()
    return (
        given
        | {f"{prefix}.{name}": value for name, value in replaced.items()}
        | {
            f"{prefix}.jdbc.password": str(dsn.get("password", "")),
            "spark.jars": ",".join(jars),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.shuffle.partitions": "1",
        }
    )


def query(relation: Relation, statement: str) -> dict[str, Any]:
    """An order for the reader."""
    instants = [column.name for column in relation.columns if column.type is Type.INSTANT]
    return {"statement": statement, "columns": relation.column_names, "instants": instants}


async def spark(settings: dict[str, str], queries: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Run the queries in Spark's environment."""
    order = folder / "order.json"
    await asyncio.to_thread(order.write_text, json.dumps({"settings": settings, "queries": queries}))
    process = await asyncio.create_subprocess_exec(
        ENVIRONMENT / "bin" / "python",
        Path(__file__).with_name("read_with_spark.py"),
        order,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), RUN_WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, err.decode()[-4000:]
    answers = [json.loads(line) for line in out.splitlines()]
    return [answer | {"query": given} for answer, given in zip(answers, queries, strict=True)]


def rows_of(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows, with values as the database returns them."""
    columns, instants = answer["query"]["columns"], set(answer["query"]["instants"])
    return ordered(
        [
            EPOCH + timedelta(microseconds=value) if name in instants and value is not None else value
            for name, value in zip(columns, row, strict=True)
        ]
        for row in answer["rows"]
    )

"""What docs/warehouses.md tells to type: in the shell as it stands, in a warehouse by way of DuckDB."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import duckdb
import pytest
import sqlglot
import yaml
from sqlglot import exp

from service.export.folder import MANIFEST
from service.model import Granularity
from tests.support.documents import blocks
from tests.support.export_harness import DAYS, ExportHarness, figures, read, two_orgs

PAGE = "docs/warehouses.md"
FOLDER = "/srv/flow-outcomes"
CONFIG = "flow-outcomes.yaml"
FORM_ALONE = (exp.Alter, exp.Semicolon)  # a session's time zone, and a comment
LOADING = (exp.Copy, exp.LoadData)

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not here: apt-get install jq")


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, and a configuration."""
    async with two_orgs(database, tmp_path / "export") as place:
        org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
        tree = {"database": {"dsn": database}, "orgs": {"acme": org, "globex": org}}
        (tmp_path / CONFIG).write_text(yaml.safe_dump(tree))
        yield place


def shell(place: ExportHarness, command: str) -> str:
    """Type it where the configuration is, with the folder in its place."""
    done = subprocess.run(
        ["/bin/bash", "-euc", command.replace(FOLDER, str(place.folder))],
        cwd=place.folder.parent,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_jq
async def test_the_folder(place: ExportHarness) -> None:
    """The export writes the tree that is drawn, jq lists what is new in it, and DuckDB reads it."""
    [command] = blocks(PAGE, "Warehouse export", "sh")
    assert shell(place, command.text).endswith("wrote 4 files with 480 rows, 0 removed, 0 unchanged\n")
    await place.acme.store(DAYS[59:], DAYS[59:], figures(DAYS[59:], count=8))
    shell(place, command.text)
    [drawn] = blocks(PAGE, "Warehouse export", "")
    for line in drawn.text.replace(FOLDER, " ").split():
        name = line.lstrip("/").replace("2024-03", "2024-02").replace("hourly", "daily")
        assert (place.folder / name).is_file(), name
    fresh, _ = blocks(PAGE, "The files", "sh")
    assert shell(place, fresh.text) == "org=acme/granularity=daily/month=2024-02/figures.parquet\n"
    [query] = blocks(PAGE, "Without a warehouse", "sql")
    wanted = query.text.replace(FOLDER, str(place.folder)).replace("2024-03", "2024-02")
    with duckdb.connect() as duck:
        found = duck.execute(f"SELECT outcomes FROM ({wanted.rstrip().rstrip(';')})").fetchall()
    assert len(found) == 58
    assert sum(int(row[0]) for row in found) == 29 * 14 + 2


@needs_jq
async def test_a_month_goes(place: ExportHarness) -> None:
    """A month of which nothing is left is listed once, and the statement takes just that month away."""
    await place.export()
    with Warehouse("snowflake") as warehouse:
        warehouse.load(place)
        await place.acme.rows(
            "DELETE FROM flow_outcomes.figure WHERE org = 'acme' AND bucket_start >= '2024-02-01' RETURNING 1"
        )
        await place.export(since_last=False)
        _, gone = blocks(PAGE, "The files", "sh")
        assert shell(place, gone.text) == "org=acme/granularity=daily/month=2024-02/figures.parquet\n"
        [delete] = blocks(PAGE, "The files", "sql")
        text = (
            delete.text.replace("2024-04", "2024-00").replace("2024-03", "2024-02").replace("2024-00", "2024-03")
        )
        for dialect in ("snowflake", "bigquery", "redshift"):
            [statement] = sqlglot.parse(text, dialect=dialect)
            assert statement is not None
            warehouse.duck.execute(statement.sql("duckdb"))
        assert warehouse.rows() == await place.stored()
        await place.export()
        assert shell(place, gone.text) == ""


@pytest.mark.parametrize("dialect", ["snowflake", "bigquery", "redshift"])
async def test_loading(place: ExportHarness, dialect: str) -> None:
    """Time after time the table is as the database: rows that changed, came and went, of changed files alone."""
    with Warehouse(dialect) as warehouse:
        await place.export()
        assert warehouse.load(place) == 4
        assert warehouse.rows() == await place.stored()
        await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
        await place.globex.store(DAYS[59:], DAYS[59:], figures(DAYS[59:], "Neu"), granularity=Granularity.HOURLY)
        await place.export()
        assert warehouse.load(place) == 2
        assert warehouse.rows() == await place.stored()
        await place.acme.rows(
            "DELETE FROM flow_outcomes.figure WHERE bucket_start = %s RETURNING 1", DAYS[40].start
        )
        await place.export(since_last=False)
        assert warehouse.load(place) == 5
        assert warehouse.rows() == await place.stored()


class Warehouse:
    """A DuckDB that carries out a warehouse's statements."""

    def __init__(self, dialect: str) -> None:
        self.duck = duckdb.connect()
        [block] = [each for each in blocks(PAGE, language="sql") if each.heading.lower() == dialect]
        self._statements = sqlglot.parse(block.text, dialect=dialect)
        self._dialect = dialect
        self._made = False
        assert any(isinstance(each, LOADING) for each in self._statements)

    def __enter__(self) -> Self:
        self.duck.execute("SET TimeZone = 'UTC'; CREATE SCHEMA reporting")
        return self

    def __exit__(self, *_: object) -> None:
        self.duck.close()

    def load(self, place: ExportHarness) -> int:
        """What is to be done each time, and the first time what comes before it; how many files were loaded."""
        told = json.loads((place.folder / MANIFEST).read_text())
        files = [
            str(place.folder / file)
            for file, each in told["partitions"].items()
            if each["export"] == told["export"] and each["rows"]
        ]
        for statement in self._to_run():
            if isinstance(statement, LOADING):
                self._load(statement, files)
            else:
                self.duck.execute(statement.sql("duckdb"))
        self._made = True
        return len(files)

    def _to_run(self) -> Iterator[exp.Expr]:
        for statement in self._statements:
            if statement is None or isinstance(statement, FORM_ALONE):
                continue
            if not isinstance(statement, exp.Create):
                yield statement
            elif statement.kind == "TABLE" and (not self._made or statement.find(exp.TemporaryProperty)):
                yield self._table(statement)
            else:
                assert self._made or statement.kind == "STAGE"

    def _table(self, statement: exp.Create) -> exp.Expr:
        """A table without the places that the warehouse gives its rows."""
        if like := statement.find(exp.LikeProperty):
            made = statement.find(exp.Table)
            assert made is not None
            text = f"CREATE OR REPLACE TABLE {made.sql()} AS FROM {like.this.sql()} LIMIT 0"
            return sqlglot.parse_one(text, dialect="duckdb")
        statement.set("properties", None)
        return statement

    def _load(self, statement: exp.Expr, files: list[str]) -> None:
        table = statement.this.sql("duckdb")
        if isinstance(statement, exp.LoadData):  # makes the table as the files are
            assert statement.args["overwrite"]
            self.duck.execute(
                f"CREATE OR REPLACE TABLE {table} AS"
                f" SELECT * FROM read_parquet({files}, hive_partitioning = false)"
            )
        else:
            named = "BY NAME" if "MATCH_BY_COLUMN_NAME" in statement.sql(self._dialect) else "BY POSITION"
            self.duck.execute(
                f"INSERT INTO {table} {named} SELECT * FROM read_parquet({files}, hive_partitioning = false)"
            )

    def rows(self) -> list[tuple[object, ...]]:
        """What a reader of the table sees."""
        return read(self.duck, "reporting.flow_outcome" if self._dialect == "bigquery" else "flow_outcome")

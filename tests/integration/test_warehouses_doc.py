"""What docs/warehouses.md tells to configure and to paste: the commands, polars, pyiceberg and DuckDB."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import polars as pl
import pytest
import yaml

from service.postgres.export.relations import FLOW_OUTCOME
from tests.support.documents import blocks
from tests.support.export_harness import ExportHarness, duck_with_iceberg, ordered, two_orgs

PAGE = "docs/warehouses.md"
CONFIG = "flow-outcomes.yaml"


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, and the page's configuration with a folder as the warehouse."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
        [block] = blocks(PAGE, "Warehouse export", "yaml")
        tree = yaml.safe_load(block.text.replace("s3://BUCKET/flow-outcomes", f"file://{place.folder}"))
        tree |= {"database": {"dsn": database}, "orgs": {"acme": org, "globex": org}}
        (tmp_path / CONFIG).write_text(yaml.safe_dump(tree))
        yield place


def shell(place: ExportHarness, command: str) -> str:
    """Run commands where the configuration is."""
    done = subprocess.run(
        ["/bin/bash", "-euc", command.replace("/srv/exported", "exported")],
        cwd=place.folder.parent,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_python_and_duckdb_read(place: ExportHarness) -> None:
    """The commands write, and the page's own code reads."""
    [commands] = blocks(PAGE, "Warehouse export", "sh")
    out = shell(place, commands.text)
    assert "wrote 12 months with 1080 rows" in out
    assert out.endswith("wrote 4 files with 480 rows to exported\n")
    [code] = blocks(PAGE, "polars and pyiceberg", "python")
    uri = place.acme.dsn.replace("postgresql://", "postgresql+psycopg://", 1)
    given = re.sub(r'"postgresql\+psycopg://\S+?\?', f'"{uri}?', code.text)
    assert given != code.text
    names: dict[str, object] = {}
    exec(compile(given, PAGE, "exec"), names)  # noqa: S102 - the page's
    stored = await place.stored()
    frame = names["frame"]
    assert isinstance(frame, pl.DataFrame)
    assert ordered(frame.select(FLOW_OUTCOME.column_names).rows()) == [row for row in stored if row[0] == "acme"]
    names["catalog"].engine.dispose()  # type: ignore[attr-defined]
    [query] = blocks(PAGE, "DuckDB", "sql")
    statement = query.text.partition("\n")[2].partition(";")[0]
    statement = re.sub(r"'s3://.*?'", f"'{place.table().metadata_location}'", statement)
    with duck_with_iceberg() as duck:
        found = duck.execute(f"SELECT outcomes FROM ({statement})").fetchall()
    assert len(found) == 58
    assert sum(int(row[0]) for row in found) == 29 * 14

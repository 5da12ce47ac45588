"""The export into a REST catalog, which chooses where tables are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog

from service.config import Export
from service.export.exporter import export
from service.export.probe import probe
from service.model import State
from service.postgres.export import RELATIONS
from tests.support.export_harness import DAYS, ExportHarness, figures, ordered, two_orgs
from tests.support.rest_catalog import TOKEN, running_rest_catalog


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "unused") as place:
        yield place


async def test_a_rest_catalog(place: ExportHarness, tmp_path: Path) -> None:
    """Figures, a restatement, expired snapshots, nothing new, a lost file, and what ``check`` finds."""
    with running_rest_catalog(tmp_path / "server") as uri:
        catalog = {"type": "rest", "uri": uri, "token": TOKEN, "warehouse": "reporting"}
        config = Export.model_validate(
            {"warehouse": "s3://not-used/here", "catalog": catalog, "keep_snapshots": timedelta(milliseconds=1)}
        )
        assert [each.state for each in probe(config, place.acme.dsn)] == [State.OK, State.SKIPPED]
        assert (await export(place.acme.dsn, config)).tables["flow_outcome"].rows == 480
        assert [each.state for each in probe(config, place.acme.dsn)] == [State.OK, State.OK]
        assert (await export(place.acme.dsn, config)).tables == {}
        await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
        done = await export(place.acme.dsn, config)
        assert (done.tables["flow_outcome"].files, done.expired) == (1, len(RELATIONS))
        reader = load_catalog("reader", **catalog)
        for relation in RELATIONS:
            table = reader.load_table(f"flow_outcomes.{relation.name}")
            assert table.location().startswith(f"file://{tmp_path}/server/chosen/")
            assert set(table.refs()) == {"main", "export-2"}
            rows = table.scan().to_arrow().select(relation.column_names)
            found = zip(*(column.to_pylist() for column in rows.columns), strict=True)
            assert ordered(found) == await place.stored(relation)
        table = reader.load_table("flow_outcomes.flow_outcome")
        [lost, *_] = [each.file.file_path for each in table.scan("org = 'globex'").plan_files()]
        table.io.delete(lost)
        done = await export(place.acme.dsn, config)
        assert done.tables["flow_outcome"][:3:2] == (4, "files of the table are missing")
        wrong = config.model_copy(update={"catalog": catalog | {"token": "another"}})
        [refused, skipped] = probe(wrong, place.acme.dsn)
        assert (refused.state, skipped.state) == (State.FAILED, State.SKIPPED)
        assert "the token is not accepted" in refused.detail

"""The export to S3 and Glue, as moto's server simulates them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import boto3
import pytest
from pyiceberg.catalog import load_catalog

from service.config import Export
from service.export.exporter import export
from service.postgres.export import RELATIONS
from tests.support.export_harness import DAYS, ExportHarness, figures, ordered, two_orgs
from tests.support.object_storage import running_moto


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket ``lake``."""
    with running_moto(monkeypatch) as url:
        yield url


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs."""
    async with two_orgs(database, tmp_path / "unused") as place:
        yield place


@pytest.mark.parametrize("kind", ["sql", "glue"])
async def test_s3(place: ExportHarness, storage: str, kind: str) -> None:
    """Figures, a restatement and nothing new, in a bucket; a lost object is noticed."""
    catalog = {"type": kind, "s3.endpoint": storage, "s3.region": "us-east-1"}
    catalog |= {"glue.endpoint": storage, "glue.region": "us-east-1"} if kind == "glue" else {}
    config = Export.model_validate({"warehouse": "s3://lake/flow", "catalog": catalog})
    assert (await export(place.acme.dsn, config)).tables["flow_outcome"].rows == 480
    assert (await export(place.acme.dsn, config)).tables == {}
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
    assert (await export(place.acme.dsn, config)).tables["flow_outcome"].files == 1
    reader = place.catalog() if kind == "sql" else load_catalog("flow_outcomes", **catalog)
    reader.properties.update(catalog)
    for relation in RELATIONS:
        table = reader.load_table(f"flow_outcomes.{relation.name}")
        assert table.location() == f"s3://lake/flow/flow_outcomes/{relation.name}"
        rows = table.scan().to_arrow().select(relation.column_names)
        assert ordered(zip(*(column.to_pylist() for column in rows.columns), strict=True)) == await place.stored(
            relation
        )
    bucket = boto3.resource("s3", endpoint_url=storage).Bucket("lake")
    lost = next(each for each in bucket.objects.all() if "/flow_outcome/data/globex/" in each.key)
    lost.delete()
    done = await export(place.acme.dsn, config)
    assert done.tables["flow_outcome"][:3:2] == (4, "files of the table are missing")
    assert reader.load_table("flow_outcomes.flow_outcome").scan().to_arrow().num_rows == 480

"""The export to S3 and Glue, Azure and Google Cloud, as simulators on loopback serve them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import boto3
import pytest
from pyarrow.fs import FileSelector, FileType
from pyiceberg.catalog import load_catalog

from service.config import Export
from service.export import maintenance
from service.export.catalog import properties_of
from service.export.exporter import export
from service.export.probe import probe
from service.export.storage import WarehouseFileIO, file_system, path_of
from service.model import State
from service.postgres.export import RELATIONS
from tests.support.export_harness import DAYS, ExportHarness, figures, ordered, two_orgs
from tests.support.object_storage import KEY, Storage, running_azurite, running_fake_gcs, running_moto


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


@pytest.mark.parametrize("running", [running_azurite, running_fake_gcs], ids=["abfs", "gs"])
async def test_other_clouds(
    place: ExportHarness,
    tmp_path: Path,
    running: Callable[[Path], AbstractContextManager[Storage]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Figures, restatements, nothing new, files that no snapshot needs, a lost object, what ``check`` finds."""
    with running(tmp_path) as storage:
        catalog = {"type": "sql"} | storage.properties
        root = f"{storage.location}/flow"
        config = Export(warehouse=root, catalog=catalog, keep_snapshots=timedelta(milliseconds=1))
        assert [each.state for each in probe(config, place.acme.dsn)] == [State.OK, State.OK]
        assert files(storage) == set()
        assert (await export(place.acme.dsn, config)).tables["flow_outcome"].rows == 480
        assert (await export(place.acme.dsn, config)).tables == {}
        for count in (8, 9):
            await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=count))
            assert (await export(place.acme.dsn, config)).tables["flow_outcome"].files == 1
        monkeypatch.setattr(maintenance, "UNREFERENCED_FOR", timedelta(days=-1))
        await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=10))
        before = files(storage)
        done = await export(place.acme.dsn, config)
        assert done.removed == len(before - files(storage)) > 10
        monkeypatch.undo()
        reader = place.catalog()
        reader.properties.update(properties_of(config))
        for relation in RELATIONS:
            table = reader.load_table(f"flow_outcomes.{relation.name}")
            assert table.location() == f"{root}/flow_outcomes/{relation.name}"
            rows = table.scan().to_arrow().select(relation.column_names)
            found = zip(*(column.to_pylist() for column in rows.columns), strict=True)
            assert ordered(found) == await place.stored(relation)
        storage.files.delete_file(next(each for each in files(storage) if "/flow_outcome/data/globex/" in each))
        done = await export(place.acme.dsn, config)
        assert done.tables["flow_outcome"][:3:2] == (4, "files of the table are missing")
        assert reader.load_table("flow_outcomes.flow_outcome").scan().to_arrow().num_rows == 480


@pytest.mark.parametrize(
    ("location", "path", "properties"),
    [
        ("abfs://lake@me.dfs.core.windows.net/a/b", "lake/a/b", {"adls.account-name": "me"}),
        ("abfss://lake@me.dfs.core.windows.net/a", "lake/a", {"adls.account-name": "me"}),
        (
            "abfs://lake@me.dfs.core.chinacloudapi.cn/a",
            "lake/a",
            {
                "adls.account-name": "me",
                "adls.dfs-storage-authority": ".dfs.core.chinacloudapi.cn",
                "adls.blob-storage-authority": ".blob.core.chinacloudapi.cn",
            },
        ),
        ("abfs://lake/a", "lake/a", {}),
        ("s3://lake/a@b", "lake/a@b", {}),
    ],
)
def test_azure_locations(location: str, path: str, properties: dict[str, str]) -> None:
    """The container, the account and the cloud are those of the location; given properties take precedence."""
    given = {"adls.account-key": KEY, "s3.region": "us-east-1"}
    io = WarehouseFileIO(given | ({} if properties else {"adls.account-name": "given"}))
    assert file_system(io, location) is not None
    assert path_of(location) == path
    assert io.properties == given | (properties or {"adls.account-name": "given"})


def files(storage: Storage) -> set[str]:
    """The files in the bucket."""
    found = storage.files.get_file_info(FileSelector("lake", recursive=True))
    return {each.path for each in found if each.type == FileType.File}

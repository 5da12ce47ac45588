"""Old months leave the database and stay readable: what was exported answers for the months that were pruned."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cli import main
from service.postgres.export.relations import FLOW_OUTCOME, RESTATEMENT, Relation
from tests.support.export_harness import DAYS, ExportHarness, duck_with_iceberg, figures, two_orgs

QUESTION = """
    SELECT org, flow_id, outcome_name, count(*) AS days, CAST(sum(outcome_count) AS bigint) AS outcomes
    FROM {source}
    WHERE granularity = 'daily' AND bucket_start >= TIMESTAMPTZ '{start} 00:00:00+00'
      AND bucket_start < TIMESTAMPTZ '{end} 00:00:00+00'
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
RESTATED = """
    SELECT org, flow_id, outcome_name, old_count, new_count FROM {source}
    WHERE bucket_start < TIMESTAMPTZ '{end} 00:00:00+00' ORDER BY 1, 2, 3, 4
"""
JANUARY, FEBRUARY = ("2024-01-01", "2024-02-01"), ("2024-02-01", "2024-03-01")


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, a day of January restated, and a configuration."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=8))
        org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
        tree = {
            "database": {"dsn": database},
            "orgs": {"acme": org, "globex": org},
            "export": {"warehouse": f"file://{place.folder}"},
        }
        (tmp_path / "flow-outcomes.yaml").write_text(yaml.safe_dump(tree))
        yield place


async def test_last_year_is_answered_from_the_warehouse(place: ExportHarness) -> None:
    """Export, prune, export: the answer is the one that the database gave, to the last figure and restatement."""
    before = await in_database(place, QUESTION, FLOW_OUTCOME, JANUARY)
    restated = await in_database(place, RESTATED, RESTATEMENT, JANUARY)
    assert [row[-1] for row in before] == [0, 31 * 7 + 1] * 2 + [0, 31 * 7] * 2
    assert restated == [("acme", flow, "Paid", 7, 8) for flow in ("billing", "support")]
    await command(place, "export")
    await command(place, "prune", "--before", "2024-02-01", "--yes")
    assert await in_database(place, QUESTION, FLOW_OUTCOME, JANUARY) == []
    assert await in_database(place, RESTATED, RESTATEMENT, JANUARY) == []
    await place.acme.store(DAYS[40:41], DAYS[40:41], figures(DAYS[40:41], count=9))
    for arguments in ((), ("--full",)):
        await command(place, "export", *arguments)
        assert in_warehouse(place, QUESTION, FLOW_OUTCOME, JANUARY) == before
        assert in_warehouse(place, RESTATED, RESTATEMENT, JANUARY) == restated
        this_year = in_warehouse(place, QUESTION, FLOW_OUTCOME, FEBRUARY)
        assert this_year == await in_database(place, QUESTION, FLOW_OUTCOME, FEBRUARY)
        assert this_year[1][-1] == 29 * 7 + 2


async def command(place: ExportHarness, *arguments: str) -> None:
    """Run a command with the configuration."""
    config = place.folder.parent / "flow-outcomes.yaml"
    assert await asyncio.to_thread(main, [*arguments, "--config", str(config)]) == 0


async def in_database(
    place: ExportHarness, question: str, relation: Relation, span: tuple[str, str]
) -> list[tuple[Any, ...]]:
    """The answer of the view."""
    start, end = span
    return await place.acme.rows(question.format(source=f"flow_outcomes.{relation.name}", start=start, end=end))


def in_warehouse(
    place: ExportHarness, question: str, relation: Relation, span: tuple[str, str]
) -> list[tuple[Any, ...]]:
    """The answer of DuckDB, from the table's newest snapshot."""
    start, end = span
    source = f"iceberg_scan('{place.table(relation.name).metadata_location}')"
    with duck_with_iceberg() as duck:
        return list(duck.execute(question.format(source=source, start=start, end=end)).fetchall())

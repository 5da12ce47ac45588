"""An export that is killed at each of its steps: readers see the former or the new rows, and no file is lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.export.maintenance import referenced
from service.postgres.export import RELATIONS
from service.postgres.export.relations import COVERAGE, FLOW_OUTCOME, FLOW_OUTCOME_DETAIL, RESTATEMENT
from tests.support.export_harness import DAYS, ExportHarness, figures, read_with_duckdb, two_orgs
from tests.support.export_kill import run_export

KEPT = timedelta(milliseconds=1)  # so that every export has snapshots that expire, and files that go
FOUR_DAYS = 4 * 86_400
CHANGING = (FLOW_OUTCOME, FLOW_OUTCOME_DETAIL, RESTATEMENT, COVERAGE)
KINDS = {
    "creating a data file",
    "creating a manifest",
    "creating the manifest list",
    "creating the metadata",
    "the commit of a table",
    "a check of the lease",
    "the result is recorded",
}


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, exported."""
    async with two_orgs(database, tmp_path / "warehouse") as place:
        await place.export()
        yield place


@pytest.mark.short
async def test_a_kill_at_some_steps(place: ExportHarness) -> None:
    """At every thirtieth step."""
    _, steps = await kill(place, every=30)
    assert steps > 100


async def test_a_kill_at_every_other_step(place: ExportHarness) -> None:
    """More than fifty kills, at every kind of step."""
    reached, steps = await kill(place, every=2)
    assert steps > 100
    assert reached == KINDS


async def test_a_kill_of_the_first_export(place: ExportHarness) -> None:
    """Tables that were created and never written into are completed by the next export."""
    step, reached = 0, set()
    while True:
        catalog = place.catalog()
        for relation in RELATIONS:
            catalog.drop_table(f"flow_outcomes.{relation.name}")
        code, names = await export_until(place, step)
        if code == 0:
            break
        reached.add(kind_of(names[-1]))
        await place.export()
        for relation in CHANGING:
            assert place.read(relation) == await place.stored(relation), (names[-1], relation.name)
        step += 12
    assert "the creation of a table" in reached


async def kill(place: ExportHarness, *, every: int) -> tuple[set[str], int]:
    """Kill an export at every such step, each followed by a complete one.

    Returns:
        The kinds of steps at which one was killed, and the number of steps.
    """
    reached: set[str] = set()
    before = {relation: place.read(relation) for relation in CHANGING}
    step = 0
    while True:
        await change(place, step)
        make_old(place)
        code, names = await export_until(place, step)
        if code == 0:
            break
        reached.add(kind_of(names[-1]))
        stored = {relation: await place.stored(relation) for relation in CHANGING}
        for relation in CHANGING:
            assert place.read(relation) in (before[relation], stored[relation]), (names[-1], relation.name)
        rows = read_with_duckdb(place.table())
        assert rows in (before[FLOW_OUTCOME], stored[FLOW_OUTCOME]), names[-1]
        await place.export()
        for relation in CHANGING:
            assert place.read(relation) == stored[relation], (names[-1], relation.name)
        before = stored
        step += every
    make_old(place)
    await change(place, step + 1)
    await place.export()
    needed = {path for relation in RELATIONS for path in referenced(place.table(relation.name))}
    assert needed <= place.on_disk()
    assert [file for file in place.on_disk() - needed if is_old(file)] == []
    return reached, len(names)


async def export_until(place: ExportHarness, step: int) -> tuple[int | None, list[str]]:
    """Export, and kill the process at a step; returns the exit code, 0 past the last step, and the steps."""
    config = place.config.model_copy(update={"keep_snapshots": KEPT})
    code, names = await asyncio.to_thread(run_export, place.acme.dsn, config, step)
    assert (code, len(names)) == (-9, step + 1) or (code == 0 and step >= len(names))
    return code, names


def kind_of(step: str) -> str:
    return step.removeprefix("before ").removeprefix("after ")


async def change(place: ExportHarness, number: int) -> None:
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=100 + number))


def is_old(file: str) -> bool:
    return time.time() - Path(file).stat().st_mtime > FOUR_DAYS / 2


def make_old(place: ExportHarness) -> None:
    """Age every file, so that one that no snapshot needs may go at once."""
    for file in place.on_disk():
        os.utime(file, (time.time() - FOUR_DAYS,) * 2)

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
from service.postgres.export.relations import FLOW_OUTCOME
from tests.support.export_harness import (
    DAYS,
    ExportHarness,
    exported_measures,
    figures,
    read_with_duckdb,
)
from tests.support.export_kill import Step, run_export

KEPT = timedelta(milliseconds=1)  # so that every export has snapshots that expire, and files that go
FOUR_DAYS = 4 * 86_400
MEASURES_CHANGE = """
    UPDATE flow_outcomes.figure SET outcome_count = %s, revision = (SELECT revision FROM flow_outcomes.org
                                                                    WHERE org = 'acme')
    WHERE org = 'acme' AND measure <> 'outcomes' AND bucket_start = %s
    RETURNING 1
"""
OFTEN = {  # how many of these steps are killed at; the number of removals differs from export to export
    "before a check of the lease": 2 * len(RELATIONS),
    "after a check of the lease": 2 * len(RELATIONS),
    **{f"before a removal in {relation.name}": 1 for relation in RELATIONS},
}
FILES = ("a data file", "a manifest", "the manifest list", "the metadata", "the commit")
ONCE = ["the result is recorded", *(f"{what} of {relation.name}" for relation in RELATIONS for what in FILES)]
STEPS = OFTEN.keys() | {f"{when} {what}" for when in ("before", "after") for what in ONCE}


@pytest.fixture
async def place(database: str, tmp_path: Path) -> AsyncIterator[ExportHarness]:
    """January and February of two orgs, exported."""
    async with exported_measures(database, tmp_path / "warehouse") as place:
        yield place


@pytest.mark.short
async def test_a_kill_at_some_steps(place: ExportHarness) -> None:
    """At every thirtieth step of an export into all tables."""
    assert len(await kill(place, every=30)) >= 4


async def test_a_kill_at_every_step(place: ExportHarness) -> None:
    """More than a hundred kills: before and after each file, each commit, checks of the lease, and the result."""
    kills = await kill(place, every=1)
    assert len(kills) > 100
    assert {step.name for step in kills} == STEPS


async def test_a_kill_of_the_first_export(place: ExportHarness) -> None:
    """Tables that were created and never written into are completed by the next export."""

    def drop_tables() -> None:
        catalog = place.catalog()
        for relation in RELATIONS:
            catalog.drop_table(f"flow_outcomes.{relation.name}")

    drop_tables()
    code, steps = await run(place, None)
    assert code == 0
    created = [step for step in steps if "the creation of" in step.name]
    assert len(created) == 2 * len(RELATIONS)
    for step in [*created[::3], *steps[::40]]:
        drop_tables()
        assert await run(place, step) == (-9, steps[: steps.index(step) + 1])
        await place.export()
        for relation in RELATIONS:
            assert place.read(relation) == await place.stored(relation), (step, relation.name)


async def kill(place: ExportHarness, *, every: int) -> list[Step]:
    """Kill an export at every such step, each followed by a complete one; returns where it was killed."""
    steps: list[Step] = []
    for number in (-2, -1, 0):  # the first exports rewrite a manifest that has several months
        await change(place, number)
        make_old(place)
        code, reached = await run(place, None)
        assert code == 0
        steps = [step for step in reached if not steps or step in steps]
    assert {step.name for step in steps} >= STEPS
    before = {relation: place.read(relation) for relation in RELATIONS}
    plan = [step for step in steps if step.number <= OFTEN.get(step.name, step.number)][::every]
    for number, step in enumerate(plan, 1):
        await change(place, number)
        make_old(place)
        code, reached = await run(place, step)
        assert (code, reached[-1]) == (-9, step)
        stored = {relation: await place.stored(relation) for relation in RELATIONS}
        assert all(stored[relation] != before[relation] for relation in RELATIONS)
        for relation in RELATIONS:
            assert place.read(relation) in (before[relation], stored[relation]), (step, relation.name)
        rows = read_with_duckdb(place.table())
        assert rows in (before[FLOW_OUTCOME], stored[FLOW_OUTCOME]), step
        await place.export()
        for relation in RELATIONS:
            assert place.read(relation) == stored[relation], (step, relation.name)
        before = stored
    make_old(place)
    await change(place, len(plan) + 1)
    await place.export()
    needed = {path for relation in RELATIONS for path in referenced(place.table(relation.name))}
    assert needed <= place.on_disk()
    assert [file for file in place.on_disk() - needed if is_old(file)] == []
    return plan


async def run(place: ExportHarness, kill_at: Step | None) -> tuple[int | None, list[Step]]:
    """Export in a process that is killed at a step; returns its exit code and the steps that it reached."""
    config = place.config.model_copy(update={"keep_snapshots": KEPT})
    return await asyncio.to_thread(run_export, place.acme.dsn, config, kill_at)


async def change(place: ExportHarness, number: int) -> None:
    """Change a month of every table."""
    await place.acme.store(DAYS[3:4], DAYS[3:4], figures(DAYS[3:4], count=100 + number))
    assert len(await place.acme.rows(MEASURES_CHANGE, 100 + number, DAYS[0].start)) == 3


def is_old(file: str) -> bool:
    return time.time() - Path(file).stat().st_mtime > FOUR_DAYS / 2


def make_old(place: ExportHarness) -> None:
    """Age every file, so that one that no snapshot needs may go at once."""
    for file in place.on_disk():
        os.utime(file, (time.time() - FOUR_DAYS,) * 2)

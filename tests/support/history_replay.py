"""Replays a generated history in the database and in the reference model, and compares them after each step."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Self

import psycopg
import pytest
from msgspec.structs import replace
from psycopg.rows import dict_row

from service.errors import ConflictError
from service.model import FlowBucket, Granularity, OutcomeRow, Reject, Span
from service.postgres import aliases
from service.postgres.aliases import Alias, AliasError
from service.postgres.pool import Database
from tests.support.history_steps import (
    BUCKETS,
    FLOWS,
    SOURCES,
    STEPS,
    AgainStep,
    AliasStep,
    ScanStep,
    Step,
)
from tests.support.reference_fold import Shown, Value
from tests.support.reference_model import CompleteScan, Key, Place, Reference
from tests.support.scan_harness import FIRST, ScanHarness

VIEWS = ("flow_outcome", "flow_outcome_detail", "flow_execution", "flow_milestone")


def _row(key: Key, value: Value, part: str) -> OutcomeRow:
    place = key.place
    return OutcomeRow(
        FlowBucket(place.flow, *place.bucket, part, key.dimensions),
        key.source,
        value.count,
        value.percentage,
        value.count is None,
        value.success,
        value.failure,
        value.executions,
        value.duration,
    )


def _dimensions(group_by: tuple[str, ...], medium: str | None) -> str:
    """As JSON; a group may lack its medium."""
    return json.dumps({name: medium if name == "mediaType" else "1" for name in group_by})


def _place(row: dict[str, Any]) -> Place:
    return Place(row["granularity"], Span(row["bucket_start"], row["bucket_end"]), row["flow_id"])


def _by_key(
    rows: list[dict[str, Any]], key: Callable[[dict[str, Any]], Any], value: Callable[[dict[str, Any]], Any]
) -> dict[Any, Any]:
    """The rows by their key, which no two may share."""
    found = {key(row): value(row) for row in rows}
    assert len(found) == len(rows)
    return found


def _durations(row: dict[str, Any]) -> tuple[int | None, ...]:
    names = ("duration_count", "duration_sum_ms", "duration_min_ms", "duration_max_ms")
    return tuple(row[name] for name in names)


def _shown(row: dict[str, Any]) -> Shown:
    return Shown(
        row["outcome_count"],
        row["outcome_percentage"],
        row["outcome_share"],
        row["success_count"],
        row["failure_count"],
        row["success_rate"],
        _durations(row),
    )


def _execution_key(row: dict[str, Any]) -> tuple[Place, str, str]:
    reason = "" if row["exit_reason"] is None else f":{row['exit_reason']}"
    return _place(row), row["metric"] + reason, json.dumps(row["dimensions"], sort_keys=True)


def _execution(row: dict[str, Any]) -> tuple[int | None, ...]:
    return row["execution_count"], *_durations(row)


def span(granularity: Granularity, bucket: int) -> Span:
    step = STEPS[granularity]
    return Span(FIRST + bucket * step, FIRST + (bucket + 1) * step)


class Replay:
    """One history, replayed in the database and in the reference model."""

    def __init__(self, harness: ScanHarness, reader: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self.harness = harness
        self.reader = reader
        self.reference = Reference()
        self.scans = 0
        self.cycle = 0
        self.last: ScanStep | None = None
        self.snapshots: list[tuple[datetime, str, Counter[str]]] = []

    async def replay_step(self, step: Step) -> None:
        """Replay a step, and compare."""
        before = await self.writes()
        model_before = (dict(self.reference.figures), self.reference.expected(), dict(self.reference.names))
        match step:
            case ScanStep():
                self.last = step
                await self.scan(step)
            case AgainStep() if self.last is not None:
                self.cycle += step.new_cycle
                await self.scan(self.last)
            case AliasStep():
                await self.alias(step)
        model = (dict(self.reference.figures), self.reference.expected(), dict(self.reference.names))
        after = await self.writes()
        fresh = model[0] != model_before[0] or model[1] != model_before[1]
        renamed = isinstance(step, AliasStep) and model[2] != model_before[2]
        assert (after[0] > before[0]) == (fresh or renamed), "a revision is added exactly where something changed"
        if not (fresh or renamed):
            assert after == before, "unchanged rows are not written"
        await self.compare()

    async def scan(self, step: ScanStep) -> None:
        granularity, width = step.granularity, step.width
        self.cycle += step.new_cycle
        self.scans += 1
        number = self.scans * 10 - step.late * 14  # never equal to another number
        first = step.first // width * width
        starts = range(first, min(BUCKETS, first + step.windows * width), width)
        windows = [Span(span(granularity, at).start, span(granularity, at + width - 1).end) for at in starts]
        numbers = range(first, starts[-1] + width)
        buckets = [span(granularity, at) for at in numbers]
        requested = step.flows or FLOWS
        values, rejects, inconclusive, rejected = {}, [], set(), set()
        for (at, flow, name, medium), each in step.figures.items():
            source, dimensions = SOURCES[step.measure][name], _dimensions(step.group_by, medium)
            key = Key(Place(granularity, span(granularity, at), flow), source, dimensions, step.measure)
            if at in numbers and flow in requested and (step.group_by or medium is None):
                values[key] = each
                if each.count is None:
                    rejects.append(
                        Reject("a bad count", f"{at} {flow}", flow, span(granularity, at).start, source)
                    )
                    rejected.add(next(window for window in windows if window.covers(span(granularity, at))))
        for at, flow in step.nameless:
            if at in numbers and flow in requested:
                dimensions = json.dumps(dict.fromkeys(step.group_by))
                key = Key(Place(granularity, span(granularity, at), flow), "", dimensions, step.measure)
                values[key] = Value(None)
                rejects.append(Reject("no name", f"{at} {flow} ?", flow, span(granularity, at).start, None))
                inconclusive.add(next(window for window in windows if window.covers(span(granularity, at))))
        for at in step.unplaced:
            if at in numbers:
                bucket_start = span(granularity, at).start if len(windows) > 1 else None
                rejects.append(Reject("no flow", f"{at} ?", None, bucket_start, "A"))
                inconclusive.add(next(window for window in windows if window.covers(span(granularity, at))))
        expect_for = step.expect * STEPS[granularity]
        model_scan = CompleteScan(
            granularity=granularity,
            windows=tuple(windows),
            buckets=tuple(buckets),
            stream=step.stream,
            flows=step.flows,
            values=values,
            rejected=frozenset(rejected | inconclusive),
            inconclusive=frozenset(inconclusive),
            expect_for=expect_for,
            cycle=str(self.cycle),
            number=number,
            measure=step.measure,
            group_by=step.group_by,
        )
        restated = len(self.reference.restated)
        # with an entry that may be any part, sums of parts are unknown
        part = "part" if step.in_parts and not inconclusive else ""
        rows = [_row(key, each, part) for key, each in values.items()]
        if step.torn:
            torn = FlowBucket(requested[0], *buckets[-1], part, _dimensions(step.group_by, "voice"))
            row = OutcomeRow(torn, "Torn", 1, None, rejected=False)
            with pytest.raises(ConflictError):
                await self.harness.store(
                    windows,
                    buckets,
                    [*rows, row, replace(row, outcome_count=2)],
                    granularity=granularity,
                    rejects=rejects,
                    stream=step.stream,
                    measure=step.measure,
                    group_by=step.group_by,
                )
            return
        doubted = self.reference.scan(model_scan)
        merged = await self.harness.store(
            windows,
            buckets,
            rows,
            granularity=granularity,
            flows=step.flows,
            expect_for=expect_for,
            rejects=rejects,
            cycle=str(self.cycle),
            stream=step.stream,
            number=number,
            measure=step.measure,
            group_by=step.group_by,
        )
        assert {window.span for window in merged.doubted} == doubted
        assert sum(merged.restated.values()) == len(self.reference.restated) - restated

    async def alias(self, step: AliasStep) -> None:
        table = self.reference.aliases
        former = dict(table)
        writing: Awaitable[object]
        if step.new is None:
            table.pop((step.flow, step.old), None)
            writing = aliases.remove(self.harness.database, self.harness.org, step.flow, step.old)
        else:
            table[step.flow, step.old] = step.new
            writing = aliases.add(self.harness.database, Alias(self.harness.org, step.flow, step.old, step.new))
        rejected_alias = self.reference.has_cycle() or (step.new is None and (step.flow, step.old) not in former)
        try:
            await writing
        except AliasError:
            assert rejected_alias
            self.reference.aliases = former
        else:
            assert not rejected_alias
        if step.apply:
            changed = self.reference.apply()
            assert bool(await aliases.apply(self.harness.database, self.harness.org)) == changed

    async def fetch(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = await self.reader.execute(query.encode(), parameters)
        return await cursor.fetchall()

    async def writes(self) -> tuple[int, int, int]:
        """The numbers of revisions and previous versions."""
        [found] = await self.fetch(
            "SELECT (SELECT count(*) FROM flow_outcomes.revision WHERE org = o.org),"
            " (SELECT count(*) FROM flow_outcomes.figure_history WHERE org = o.org),"
            " (SELECT count(*) FROM flow_outcomes.series_history WHERE org = o.org)"
            " FROM flow_outcomes.org o WHERE org = %s",
            self.harness.org,
        )
        return found[0], found[1], found[2]

    async def view(self, relation: str, *parameters: object) -> list[dict[str, Any]]:
        """The org's rows of a view, or of an as-of function."""
        async with self.reader.cursor(row_factory=dict_row) as cursor:
            query = f"SELECT * FROM flow_outcomes.{relation} WHERE org = %s"
            await cursor.execute(query.encode(), [*parameters, self.harness.org])
            return await cursor.fetchall()

    async def compare(self) -> None:
        """Compare the views with the model, and keep a copy for as-of."""
        [(now,)] = await self.fetch("SELECT clock_timestamp()")
        rows = {name: await self.view(name) for name in VIEWS}
        self.snapshots += [(now, name, Counter(map(repr, rows[name]))) for name in VIEWS]
        total, detail, executions, milestones = rows.values()
        expected = self.reference.shown()
        assert _by_key(total, lambda row: (_place(row), row["outcome_name"]), _shown) == expected
        assert all(row["outcome_key"] == f"{row['flow_id']}_{row['outcome_name']}" for row in total)
        of_detail = _by_key(
            detail,
            lambda row: (_place(row), row["outcome_name"], json.dumps(row["dimensions"], sort_keys=True)),
            _shown,
        )
        assert of_detail == self.reference.detail()
        sums: dict[tuple[Place, str], list[int | None]] = {}
        for (place, name, _), shown in of_detail.items():
            sums.setdefault((place, name), []).append(shown.count)
        assert sums.keys() == expected.keys()
        for row, parts in sums.items():
            if (count := expected[row].count) is not None:
                assert count == sum(part or 0 for part in parts), "the detail adds up to the total"
        assert _by_key(executions, _execution_key, _execution) == self.reference.further("executions")
        assert _by_key(
            milestones,
            lambda row: (_place(row), row["milestone_name"], json.dumps(row["dimensions"], sort_keys=True)),
            lambda row: (row["milestone_count"], row["execution_count"]),
        ) == self.reference.further("milestones")

    async def close(self) -> None:
        """Compare what the complete history left: as-of, restatements, and pending aliases."""
        for at, name, snapshot in self.snapshots:
            rows = await self.view(f"{name}_as_of(%s)", at)
            assert Counter(map(repr, rows)) == snapshot, f"{name} as of {at}"
        restated = await self.fetch(
            "SELECT granularity, bucket_start, flow_id, outcome_name, old_count, new_count"
            " FROM flow_outcomes.restatement WHERE org = %s",
            self.harness.org,
        )
        assert Counter(restated) == Counter(
            (place.granularity, place.bucket.start, place.flow, name, old, new)
            for place, name, old, new in self.reference.restated
        )
        # aliases that were not applied yet: the result does not depend on when they are
        self.reference.apply()
        await aliases.apply(self.harness.database, self.harness.org)
        await self.compare()


class Replays:
    """Replays histories in one database, each in an org of its own."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._runner = asyncio.Runner()
        self._numbers = itertools.count()
        self._pool = Database(dsn, size=2, application_name="test")

    def __enter__(self) -> Self:
        self._runner.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._close())
        self._runner.close()

    async def _open(self) -> None:
        await self._pool.open()
        self._reader = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)

    async def _close(self) -> None:
        await self._reader.close()
        await self._pool.close()

    def run(self, history: list[Step]) -> None:
        """Replay a history in a new org."""
        self._runner.run(self._run(history))

    async def _run(self, history: list[Step]) -> None:
        harness = ScanHarness(self._dsn, self._pool, f"org_{next(self._numbers)}")
        await harness.create_org()
        replay = Replay(harness, self._reader)
        for step in history:
            await replay.replay_step(step)
        await replay.close()

"""Whatever history of scans, corrections and aliases: the tables say what the plain definition says.

``FLOW_OUTCOMES_HISTORIES`` tells how many histories are tried; ``make soak`` tries thousands of long ones.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.errors import ConflictError
from service.model import FlowBucket, Granularity, OutcomeRow, Reject, Span
from service.postgres import aliases
from service.postgres.aliases import Alias, AliasError
from service.postgres.pool import Database
from tests.support.reference_model import Key, Place, Reference, Row, Said, Scanned, Shown
from tests.support.scan_harness import FIRST, ScanHarness

HISTORIES = int(os.environ.get("FLOW_OUTCOMES_HISTORIES", "60"))
STEPS = {Granularity.HOURLY: timedelta(hours=1), Granularity.DAILY: timedelta(days=1)}
BUCKETS = 6
FLOWS = ("f", "g")
NAMES = ("A", "B", "C", "%s'\"\\\u202e\n⚑")
HUGE = 2**63 - 1
LEAPS = (0, 1, 2, 31)  # expect_for, in buckets


@dataclass(frozen=True)
class ScanStep:
    """A scan of some windows; it begins ``late`` scans before the one that was merged last began.

    One that is ``torn`` says two things of one outcome, so that it fails when much of it was written already.
    """

    granularity: Granularity
    work: str
    first: int
    windows: int
    width: int
    flows: tuple[str, ...]
    figures: dict[tuple[int, str, str], Said]
    nameless: frozenset[tuple[int, str]]
    unplaced: frozenset[int]
    expect: int
    new_cycle: bool
    late: int
    torn: bool = False


@dataclass(frozen=True)
class AgainStep:
    """The scan before, once more."""

    new_cycle: bool


@dataclass(frozen=True)
class AliasStep:
    """An entry of the mapping table, written or (``new`` is None) taken out; it may wait to take hold."""

    flow: str | None
    old: str
    new: str | None
    apply: bool


Step = ScanStep | AgainStep | AliasStep

SAID = st.builds(
    Said,
    st.sampled_from((0, 1, 2, 3, 40, HUGE, None)),
    st.sampled_from((None, 0.0, 0.25, 0.5, 1.0)),
).map(lambda said: said if said.count is not None else Said(None))
FIGURES = st.dictionaries(
    st.tuples(st.integers(0, BUCKETS - 1), st.sampled_from(FLOWS), st.sampled_from(NAMES)), SAID, max_size=8
)
SCAN = st.builds(
    ScanStep,
    granularity=st.sampled_from([Granularity.DAILY, Granularity.DAILY, Granularity.DAILY, Granularity.HOURLY]),
    work=st.sampled_from(("job:one", "job:one", "job:two", "ad hoc")),
    first=st.integers(0, BUCKETS - 1),
    windows=st.integers(1, 4),
    width=st.sampled_from((1, 1, 1, 2)),
    flows=st.sampled_from(((), (), (), ("f",), ("g",), ("f", "g"))),
    figures=FIGURES,
    nameless=st.frozensets(st.tuples(st.integers(0, BUCKETS - 1), st.sampled_from(FLOWS)), max_size=1),
    unplaced=st.frozensets(st.integers(0, BUCKETS - 1), max_size=1),
    expect=st.sampled_from((*LEAPS, 31, 31)),
    new_cycle=st.booleans(),
    late=st.sampled_from((0, 0, 0, 0, 1, 2)),
    torn=st.sampled_from((False,) * 7 + (True,)),
)
ALIAS = st.builds(
    AliasStep,
    flow=st.sampled_from((None, None, "f", "g")),
    old=st.sampled_from((*NAMES, "X")),
    new=st.sampled_from((*NAMES, "X", "Y", None)),
    apply=st.booleans(),
)
STEP = st.one_of(SCAN, SCAN, SCAN, st.builds(AgainStep, st.booleans()), ALIAS)
HISTORY = st.lists(STEP, min_size=1, max_size=10)

Seen = dict[Row, Shown]


def _row(key: Key, said: Said) -> OutcomeRow:
    place = key.place
    return OutcomeRow(
        FlowBucket(place.flow, *place.bucket), key.source, said.count, said.percentage, rejected=said.count is None
    )


def span(granularity: Granularity, bucket: int) -> Span:
    step = STEPS[granularity]
    return Span(FIRST + bucket * step, FIRST + (bucket + 1) * step)


class Account:
    """One history, told to the database and to the plain definition alike."""

    def __init__(self, desk: ScanHarness, reader: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self.desk = desk
        self.reader = reader
        self.reference = Reference()
        self.scans = 0
        self.cycle = 0
        self.last: ScanStep | None = None
        self.snapshots: list[tuple[datetime, Counter[tuple[Any, ...]]]] = []

    async def take(self, step: Step) -> None:
        """One step, and what a reader sees after it."""
        before = await self.writes()
        told_before = (dict(self.reference.figures), self.reference.expected(), dict(self.reference.names))
        match step:
            case ScanStep():
                self.last = step
                await self.scan(step)
            case AgainStep() if self.last is not None:
                self.cycle += step.new_cycle
                await self.scan(self.last)
            case AliasStep():
                await self.alias(step)
        told = (dict(self.reference.figures), self.reference.expected(), dict(self.reference.names))
        after = await self.writes()
        fresh = told[0] != told_before[0] or told[1] != told_before[1]
        renamed = isinstance(step, AliasStep) and told[2] != told_before[2]
        assert (after[0] > before[0]) == (fresh or renamed), "a revision is made just where something changed"
        if not (fresh or renamed):
            assert after == before, "what is unchanged is not written"
        await self.compare()

    async def scan(self, step: ScanStep) -> None:
        granularity, width = step.granularity, step.width
        self.cycle += step.new_cycle
        self.scans += 1
        began = self.scans * 10 - step.late * 14  # never at the same instant as another
        first = step.first // width * width
        starts = range(first, min(BUCKETS, first + step.windows * width), width)
        windows = [Span(span(granularity, at).start, span(granularity, at + width - 1).end) for at in starts]
        numbers = range(first, starts[-1] + width)
        buckets = [span(granularity, at) for at in numbers]
        asked = step.flows or FLOWS
        said, rejects, untold, rejected = {}, [], set(), set()
        for (at, flow, name), each in step.figures.items():
            if at in numbers and flow in asked:
                said[Key(Place(granularity, span(granularity, at), flow), name)] = each
                if each.count is None:
                    rejects.append(Reject("a bad count", f"{at} {flow}", flow, span(granularity, at).start, name))
                    rejected.add(next(window for window in windows if window.covers(span(granularity, at))))
        for at, flow in step.nameless:
            if at in numbers and flow in asked:
                said[Key(Place(granularity, span(granularity, at), flow), "")] = Said(None)
                rejects.append(Reject("no name", f"{at} {flow} ?", flow, span(granularity, at).start, None))
                untold.add(next(window for window in windows if window.covers(span(granularity, at))))
        for at in step.unplaced:
            if at in numbers:
                known = span(granularity, at).start if len(windows) > 1 else None
                rejects.append(Reject("no flow", f"{at} ?", None, known, "A"))
                untold.add(next(window for window in windows if window.covers(span(granularity, at))))
        expect_for = step.expect * STEPS[granularity]
        told = Scanned(
            granularity=granularity,
            windows=tuple(windows),
            buckets=tuple(buckets),
            work=step.work,
            flows=step.flows,
            said=said,
            rejected=frozenset(rejected | untold),
            untold=frozenset(untold),
            expect_for=expect_for,
            cycle=str(self.cycle),
            began=began,
        )
        restated = len(self.reference.restated)
        rows = [_row(key, each) for key, each in said.items()]
        if step.torn:
            row = OutcomeRow(FlowBucket(asked[0], *buckets[-1]), "Torn", 1, None, rejected=False)
            with pytest.raises(ConflictError):
                await self.desk.store(
                    windows,
                    buckets,
                    [*rows, row, replace(row, outcome_count=2)],
                    granularity=granularity,
                    rejects=rejects,
                    work=step.work,
                )
            return
        doubted = self.reference.scan(told)
        merged = await self.desk.store(
            windows,
            buckets,
            rows,
            granularity=granularity,
            flows=step.flows,
            expect_for=expect_for,
            rejects=rejects,
            cycle=str(self.cycle),
            work=step.work,
            number=began,
        )
        assert {window.span for window in merged.doubted} == doubted
        assert sum(merged.restated.values()) == len(self.reference.restated) - restated

    async def alias(self, step: AliasStep) -> None:
        table = self.reference.aliases
        former = dict(table)
        writing: Awaitable[object]
        if step.new is None:
            table.pop((step.flow, step.old), None)
            writing = aliases.remove(self.desk.database, self.desk.org, step.flow, step.old)
        else:
            table[step.flow, step.old] = step.new
            writing = aliases.add(self.desk.database, Alias(self.desk.org, step.flow, step.old, step.new))
        refused = self.reference.circles() or (step.new is None and (step.flow, step.old) not in former)
        try:
            await writing
        except AliasError:
            assert refused
            self.reference.aliases = former
        else:
            assert not refused
        if step.apply:
            changed = self.reference.apply()
            assert bool(await aliases.apply(self.desk.database, self.desk.org)) == changed

    async def fetch(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = await self.reader.execute(query.encode(), parameters)
        return await cursor.fetchall()

    async def writes(self) -> tuple[int, int, int]:
        """How many revisions and former versions there are."""
        [found] = await self.fetch(
            "SELECT (SELECT count(*) FROM flow_outcomes.revision WHERE org = o.org),"
            " (SELECT count(*) FROM flow_outcomes.figure_history WHERE org = o.org),"
            " (SELECT count(*) FROM flow_outcomes.outcome_history WHERE org = o.org)"
            " FROM flow_outcomes.org o WHERE org = %s",
            self.desk.org,
        )
        return found[0], found[1], found[2]

    async def compare(self) -> None:
        """Hold flow_outcome against the definition, and keep it for as-of."""
        rows = await self.fetch("SELECT * FROM flow_outcomes.flow_outcome WHERE org = %s", self.desk.org)
        [(now,)] = await self.fetch("SELECT clock_timestamp()")
        self.snapshots.append((now, Counter(rows)))
        seen: Seen = {
            (Place(row[2], Span(row[3], row[4]), row[1]), row[6]): Shown(row[7], row[8], row[9]) for row in rows
        }
        assert len(seen) == len(rows)
        assert seen == self.reference.shown()
        assert all(row[5] == f"{row[1]}_{row[6]}" for row in rows)

    async def close(self) -> None:
        """What is told of the whole history at its end."""
        for at, snapshot in self.snapshots:
            rows = await self.fetch(
                "SELECT * FROM flow_outcomes.flow_outcome_as_of(%s) WHERE org = %s", at, self.desk.org
            )
            assert Counter(rows) == snapshot, f"as of {at}"
        rows = await self.fetch(
            "SELECT granularity, bucket_start, flow_id, outcome_name, old_count, new_count"
            " FROM flow_outcomes.restatement WHERE org = %s",
            self.desk.org,
        )
        assert Counter(rows) == Counter(
            (place.granularity, place.bucket.start, place.flow, name, old, new)
            for place, name, old, new in self.reference.restated
        )
        # what waits is applied at last, as a daemon would: the end does not hang on when
        self.reference.apply()
        await aliases.apply(self.desk.database, self.desk.org)
        await self.compare()


class Hall:
    """Many accounts on one database, an org each."""

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

    def tell(self, history: list[Step]) -> None:
        """A history in an org of its own."""
        self._runner.run(self._tell(history))

    async def _tell(self, history: list[Step]) -> None:
        desk = ScanHarness(self._dsn, self._pool, f"org_{next(self._numbers)}")
        await desk.found()
        account = Account(desk, self._reader)
        for step in history:
            await account.take(step)
        await account.close()


@pytest.fixture
def hall(database: str) -> Iterator[Hall]:
    with Hall(database) as hall:
        yield hall


def _tried(histories: int) -> settings:
    return settings(
        max_examples=histories,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


@_tried(HISTORIES)
@given(history=HISTORY)
def test_any_history_ends_in_what_the_plain_definition_says(hall: Hall, history: list[Step]) -> None:
    """At every step, and as of every step afterwards; what is unchanged is not written."""
    hall.tell(history)


@pytest.mark.soak
@_tried(5000)
@given(history=st.lists(STEP, min_size=1, max_size=30))
def test_any_long_history_does_so_too(hall: Hall, history: list[Step]) -> None:
    """The same for thousands of longer ones."""
    hall.tell(history)

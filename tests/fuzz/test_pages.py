"""Mutated pages: they raise only errors of the project, and give only rows that are in the page."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg
import pytest

from service.clock import SystemClock
from service.errors import FlowOutcomesError
from service.extraction.normalise import BucketGrid, normalise
from service.genesys import flow_aggregates, query_builder
from service.model import Entry, Granularity, NormalisedPage, Query, Scan, Span, ValidEntry, Window, instant
from service.postgres.lease.lease import Lease
from service.postgres.merge import ScanBuffer, ScanRecord, merge
from service.postgres.pool import Database
from tests.support.databases import create_partitions
from tests.support.mutation import mutate
from tests.support.rows import rows_of

LONG = int(os.environ.get("FLOW_OUTCOMES_FUZZ_PAGES", "100000"))
SEED = int(os.environ.get("FLOW_OUTCOMES_FUZZ_SEED", "3"))
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
BUCKETS = [Span(FIRST + number * DAY, FIRST + (number + 1) * DAY) for number in range(3)]
SPAN = Span(BUCKETS[0].start, BUCKETS[-1].end)
FLOW = "11111111-2222-3333-4444-555555555555"
CLOCK = SystemClock()
PAGE_COUNTS = [pytest.param(3000, marks=pytest.mark.unit), pytest.param(LONG, marks=pytest.mark.chaos)]


def query(flows: tuple[str, ...] = ()) -> Query:
    return Query("acme", SPAN, Granularity.DAILY, "UTC", flows, 100, None, SPAN)


def interval(bucket: Span) -> str:
    return f"{instant(bucket.start)}/{instant(bucket.end)}"


BUILT: dict[str, Any] = {
    "nextPageToken": "abc",
    "metrics": ["flow-outcomes"],
    "data": [
        {
            "group": {"flow-id": flow},
            "interval": interval(bucket),
            "metrics": {
                "flow-outcomes": {
                    "Café": {"count": 145, "percentOfTotal": 0.62},
                    "Abandoned": {"count": 42, "percentOfTotal": 0.18},
                    "Zero": {"count": 0},
                }
            },
        }
        for flow in (FLOW, "f2")
        for bucket in BUCKETS
    ],
}
AGGREGATED: dict[str, Any] = {
    "cursor": "abc",
    "results": [
        {
            "group": {"flowId": FLOW, "flowOutcomeId": "o1", "flowOutcomeValue": value},
            "data": [
                {
                    "interval": interval(bucket),
                    "metrics": [
                        {"metric": "nFlowOutcome", "stats": {"count": 17}},
                        {"metric": "nFlowOutcomeFailed", "stats": {"count": failed}},
                    ],
                }
                for bucket in BUCKETS
            ],
        }
        for value, failed in (("SUCCESS", 0), ("FAILURE", 17))
    ],
}


class Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its pairs, including duplicate keys."""


def figures_in(page: bytes) -> set[tuple[str, str, str, int]]:
    """Return flow, bucket start, outcome and count of each figure in a page, without the project's code."""
    figures: set[tuple[str, str, str, int]] = set()
    document = json.loads(
        page.decode(), object_pairs_hook=Pairs, parse_float=number, parse_constant=lambda _: None
    )
    for key, data in document:
        if key != "data" or type(data) is not list:
            continue
        for element in data:
            flows = {
                value
                for name, inner in pairs(element)
                for part, value in (
                    [(name, inner)] if name == "flow-id" else pairs(inner) if name == "group" else []
                )
                if part == "flow-id" and isinstance(value, str)
            }
            starts = {
                value.partition("/")[0]
                for name, value in pairs(element)
                if name in ("interval", "dateFrom") and isinstance(value, str)
            }
            for name, metrics in pairs(element):
                for kind, outcomes in pairs(metrics) if name == "metrics" else ():
                    for outcome, figure in pairs(outcomes) if kind == "flow-outcomes" else ():
                        for part, count in pairs(figure):
                            if part == "count" and isinstance(count, (int, Decimal)) and count == int(count):
                                buckets = itertools.product(flows, starts)
                                figures |= {(flow, start, outcome, int(count)) for flow, start in buckets}
    return figures


def number(text: str) -> Decimal | None:
    """Parse a JSON number; None if it cannot be a count."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if abs(value) < 2**64 else None


def pairs(value: object) -> Sequence[tuple[str, Any]]:
    return value if isinstance(value, Pairs) else ()


def normalise_page(
    decode: Callable[[bytes], tuple[Sequence[Entry | ValidEntry], object]], page: bytes
) -> NormalisedPage | None:
    """Normalise a page; None if it raises an error of the project."""
    grid = BucketGrid.of(query(), BUCKETS, lambda at: at.hour == at.minute == at.second == at.microsecond == 0)
    try:
        return normalise(decode(page)[0], grid)
    except FlowOutcomesError:
        return None


@pytest.fixture(autouse=True)
def _long_numbers() -> Any:  # noqa: ANN401 - a generator
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)  # needed by this test, not by the project
    yield
    sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("pages", PAGE_COUNTS)
def test_pages_of_the_query_builder(pages: int) -> None:
    """Every accepted flow, bucket, outcome and count is in the page."""
    rng, results = random.Random(SEED), Counter[str]()  # noqa: S311 - not for cryptography
    for number in range(pages):
        page = mutate(BUILT, rng)
        sys.set_int_max_str_digits(4300)
        normalised = normalise_page(lambda answer: query_builder.decode(answer, query()), page)
        sys.set_int_max_str_digits(0)
        results["invalid" if normalised is None else "with rejects" if normalised.rejects else "valid"] += 1
        if normalised is None:
            continue
        figures = figures_in(page)
        for row in rows_of(normalised):
            assert SPAN.start <= row.bucket.start < row.bucket.end <= SPAN.end
            assert (row.outcome_count is None) == row.rejected
            if row.rejected:
                continue
            start = row.bucket.start
            in_page = {(flow, name, count) for flow, at, name, count in figures if parse_instant(at) == start}
            assert (row.bucket.flow_id, row.source_key, row.outcome_count) in in_page, (SEED, number, page)
            assert row.outcome_percentage is None or 0 <= row.outcome_percentage <= 1
            assert "\0" not in row.source_key
            assert 0 < len(row.source_key.encode()) <= 512
        for reject in normalised.rejects:
            reject.raw.encode()
            assert "\0" not in reject.reason + reject.raw
    assert min(results[kind] for kind in ("invalid", "with rejects", "valid")) > pages // 50, results


def parse_instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


@pytest.mark.parametrize("pages", PAGE_COUNTS)
def test_pages_of_flow_aggregates(pages: int) -> None:
    """Only errors of the project are raised, and counts are within bounds."""
    rng, results = random.Random(SEED), Counter[str]()  # noqa: S311 - not for cryptography
    for number in range(pages):
        page = mutate(AGGREGATED, rng)
        sys.set_int_max_str_digits(4300)
        normalised = normalise_page(flow_aggregates.decode, page)
        sys.set_int_max_str_digits(0)
        results["invalid" if normalised is None else "with rejects" if normalised.rejects else "valid"] += 1
        for row in rows_of(normalised) if normalised else ():
            assert SPAN.start <= row.bucket.start < row.bucket.end <= SPAN.end
            assert (row.outcome_count is None) == row.rejected
            if not row.rejected:
                assert row.outcome_count is not None
                assert 0 <= row.outcome_count < 2**63, (SEED, number, page)
    assert min(results[kind] for kind in ("invalid", "with rejects", "valid")) > pages // 50, results


@pytest.mark.parametrize(
    "pages",
    [pytest.param(150, marks=pytest.mark.integration), pytest.param(3000, marks=pytest.mark.chaos)],
)
async def test_stored_rows_are_valid(database: str, pages: int) -> None:
    """A merge raises only errors of the project, or stores exactly the accepted rows."""
    rng = random.Random(SEED)  # noqa: S311 - not for cryptography
    create_partitions(database, SPAN.start, SPAN.end)
    pool = Database(database, size=2, application_name="fuzz")
    await pool.open()
    stored = 0
    try:
        for number in range(pages):
            org = f"org{number}"
            async with pool.transaction() as connection:
                await connection.execute("INSERT INTO flow_outcomes.org (org, epoch) VALUES (%s, 1)", [org])
            lease = Lease(org, 1, 0.0, CLOCK.monotonic() + 3600, CLOCK, asyncio.Event())
            normalised = normalise_page(lambda answer: query_builder.decode(answer, query()), mutate(BUILT, rng))
            if normalised is None:
                continue
            window = Window(org, "ad hoc", None, SPAN, "daily", Granularity.DAILY, FIRST)
            record = ScanRecord(
                Scan((window,), (query(),), DAY),
                BUCKETS,
                (),
                "hash",
                CLOCK.now(),
                1,
                1,
                "cycle",
                1,
                CLOCK.monotonic(),
            )
            buffer = ScanBuffer(pool, org)
            await buffer.add(normalised)
            try:
                await merge(pool, lease, buffer, record)
            except FlowOutcomesError:
                continue
            finally:
                await buffer.abandon()
            stored += 1
            accepted = {
                (row.bucket.flow_id, row.bucket.start, row.source_key, row.outcome_count)
                for row in rows_of(normalised)
                if not row.rejected
            }
            with psycopg.connect(database, options="-c timezone=UTC") as connection:
                rows = connection.execute(
                    "SELECT flow_id, bucket_start, outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
                    " WHERE org = %s AND outcome_count IS NOT NULL",
                    [org],
                ).fetchall()
            assert set(rows) <= accepted, (SEED, number)
    finally:
        await pool.close()
    assert stored > pages // 5

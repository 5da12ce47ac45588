"""How long an alias takes to apply to millions of stored figures, with concurrent readers and a daily window.

python -m benchmarks.alias_hold [--flows 1000] [--outcomes 50] [--days 100]

The defaults store 5 million figures; the alias renames one outcome of every flow, 100,000 figures.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from benchmarks.generated_org import ORG, generate_org
from service.model import FlowBucket, OutcomeRow, Span
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate
from service.postgres.pool import Database
from tests.support.scan_harness import ScanHarness

T = TypeVar("T")
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)

DASHBOARD = (
    "SELECT * FROM {relation} WHERE org = 'acme' AND granularity = 'daily' AND flow_id = 'flow 7'"
    " AND bucket_start >= '2024-02-01' AND bucket_start < '2024-03-01'"
)
WIDE = (
    "SELECT outcome_name, sum(outcome_count) FROM {relation} WHERE org = 'acme' AND granularity = 'daily'"
    " AND bucket_start >= '2024-02-01' AND bucket_start < '2024-02-08' GROUP BY 1"
)
NOW, AS_OF = "flow_outcomes.flow_outcome", "flow_outcomes.flow_outcome_as_of(now() - interval '1 hour')"


class Bench:
    """A database with many figures."""

    def __init__(self, dsn: str, flows: int, outcomes: int, days: int) -> None:
        self.dsn = dsn
        self.flows = flows
        self.outcomes = outcomes
        self.days = days
        self.database = Database(dsn, size=4, application_name="alias_hold")
        self.harness = ScanHarness(dsn, self.database, ORG)
        self.done = asyncio.Event()

    async def run(self) -> None:
        """Fill the database and measure."""
        await self.database.open()
        await timed("fill", self.fill())
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await self.explain(connection)
            await timed("a daily window alone, all rows changed", self.merge(1))
            alias = Alias(ORG, None, "Outcome 1", "Outcome 2")
            readers = [asyncio.create_task(self.read()) for _ in range(2)]
            merging = asyncio.create_task(timed("a concurrent daily window, all rows changed", self.merge(2)))
            await asyncio.sleep(0.2)
            await timed("alias written", aliases.add(self.database, alias))
            renamed = await timed("alias applied (it waits for the running merge)", self.apply())
            [(rows,)] = await fetch(
                connection,
                "SELECT count(*) FROM flow_outcomes.figure f JOIN flow_outcomes.series o USING (org, series_no)"
                " WHERE o.reported_name = 'Outcome 1'",
            )
            print(f"{renamed} outcomes renamed, {rows:,} figures renamed")
            await merging
            await aliases.remove(self.database, ORG, None, "Outcome 1")
            await timed("alias removed, with readers alone", self.apply())
            self.done.set()
            waits = [wait for reader in readers for wait in await reader]
            print(
                f"{len(waits)} concurrent reads, slowest {max(waits):.3f} s, mean {sum(waits) / len(waits):.3f} s"
            )
            await self.explain(connection)
        await self.database.close()

    async def fill(self) -> None:
        """Store the figures."""
        last = FIRST + self.days * DAY
        await asyncio.to_thread(generate_org, self.dsn, FIRST, last, flows=self.flows, outcomes=self.outcomes)

    async def apply(self) -> int:
        """Apply the alias table."""
        return await aliases.apply(self.database, ORG)

    async def read(self) -> list[float]:
        """Query continuously as a dashboard does; return how long each query took."""
        waits = []
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            while not self.done.is_set():
                began = time.perf_counter()
                await fetch(connection, DASHBOARD.format(relation=NOW))
                waits.append(time.perf_counter() - began)
                await asyncio.sleep(0.05)
        return waits

    async def merge(self, more: int) -> None:
        """Merge a scan of the last day in which every count has changed."""
        span = Span(FIRST + (self.days - 1) * DAY, FIRST + self.days * DAY)
        buckets = [FlowBucket(f"flow {flow}", *span) for flow in range(1, self.flows + 1)]
        names = [f"Outcome {number}" for number in range(1, self.outcomes + 1)]
        rows = [
            OutcomeRow(bucket, name, 1000 + more, 0.02, rejected=False) for bucket in buckets for name in names
        ]
        merged = await self.harness.store([span], [span], rows)
        print(f"{merged.changed:,} figures changed")

    async def explain(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Print the time and the scans of a dashboard's queries."""
        for relation in (NOW, AS_OF):
            for name, query in (("a flow's month", DASHBOARD), ("a week of all flows", WIDE)):
                plan = await fetch(
                    connection, f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {query.format(relation=relation)}"
                )
                lines = [line for (line,) in plan]
                scans = sorted(
                    {line.strip(" ->").split(" (")[0] for line in lines if "Scan" in line and "never" not in line}
                )
                print(f"{name}, {relation.partition('.')[2]}: {lines[-1].strip()}")
                print("".join(f"    {scan}\n" for scan in scans), end="")


async def fetch(connection: psycopg.AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    """Run a query and return its rows."""
    cursor = await connection.execute(query.encode())
    return await cursor.fetchall()


async def timed(what: str, doing: Awaitable[T]) -> T:
    """Await ``doing`` and print how long it took."""
    began = time.perf_counter()
    done = await doing
    print(f"{what}: {time.perf_counter() - began:.2f} s", flush=True)
    return done


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--outcomes", type=int, default=50)
    parser.add_argument("--days", type=int, default=100)
    arguments = parser.parse_args()
    print(f"{arguments.flows * arguments.outcomes * arguments.days:,} figures of {arguments.flows} flows")
    with (
        tempfile.TemporaryDirectory(prefix="flow-outcomes-bench-") as folder,
        Embedded(Path(folder), durable=False) as dsn,
    ):
        migrate(dsn)
        asyncio.run(Bench(dsn, arguments.flows, arguments.outcomes, arguments.days).run())


if __name__ == "__main__":
    main()

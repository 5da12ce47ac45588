"""Partitions are created although other sessions hold locks, and nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from service.errors import PartitionLockedError, StorageError
from service.model import Span
from service.postgres.merge.partitions import AHEAD, AHEAD_RETRY, Partitions
from service.postgres.pool import Database
from tests.support.fake_clock import FakeClock

MARCH = Span(datetime(2024, 3, 30, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))


class Site:
    """The partitions of a database, with the events and the clock of the daemon."""

    def __init__(self, dsn: str, database: Database) -> None:
        self.dsn = dsn
        self.clock = FakeClock()
        self.events: list[dict[str, Any]] = []
        self.partitions = Partitions(database, self.clock, self.emit)

    def emit(self, event: str, **context: object) -> None:
        """Record an event."""
        self.events.append({"event": event, **context})

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement as another session."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def months(self) -> list[str]:
        """The months for which both tables have a partition."""
        rows = self.run(
            "SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent IN ('flow_outcomes.figure'::regclass, 'flow_outcomes.figure_history'::regclass)"
            " GROUP BY 1 HAVING count(*) = 2 ORDER BY 1"
        )
        return [month for (month,) in rows]


@pytest.fixture
async def site(database: str) -> AsyncIterator[Site]:
    pool = Database(database, size=4, application_name="flow-outcomes test")
    await pool.open()
    yield Site(database, pool)
    await pool.close()


def holder(site: Site, statement: str, name: str = "night report") -> psycopg.Connection[Any]:
    """A session whose transaction has run a statement and is still open."""
    connection = psycopg.connect(site.dsn, application_name=name)
    connection.execute(statement.encode())
    return connection


async def test_the_months_of_a_scan_and_the_months_after_it(site: Site) -> None:
    """Both tables get the same months, once."""
    await site.partitions.ensure(MARCH)
    assert site.months() == ["y2024m03", "y2024m04", "y2024m05", "y2024m06", "y2024m07"]
    await site.partitions.ensure(MARCH)
    assert site.events == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM flow_outcomes.flow_outcome",
        "SELECT count(*) FROM flow_outcomes.figure",
        "SELECT * FROM flow_outcomes.flow_outcome_as_of(now())",
        "DECLARE report CURSOR FOR SELECT * FROM flow_outcomes.figure",
        "SELECT * FROM flow_outcomes.figure FOR SHARE",
        "LOCK TABLE flow_outcomes.figure, flow_outcomes.figure_history IN ROW EXCLUSIVE MODE",
    ],
)
async def test_an_open_transaction_of_a_reader_delays_nothing(site: Site, statement: str) -> None:
    """Partitions are created beside it, and no other reader waits."""
    site.run("SELECT flow_outcomes.ensure_partitions('2024-01-01Z', '2024-02-01Z')")
    with holder(site, statement) as report:
        async with asyncio.timeout(2):
            await site.partitions.ensure(MARCH)
        held = "SELECT count(*) > 0 FROM pg_locks WHERE granted AND pid = %s AND relation IS NOT NULL"
        assert site.run(held.replace("%s", str(report.info.backend_pid))) == [(True,)]
    assert len(site.months()) == 6
    assert site.events == []


async def test_months_ahead_are_postponed_while_their_lock_is_held(site: Site) -> None:
    """The scan goes on at once; the reason names the session; the attempt is repeated after a minute."""
    site.run("SELECT flow_outcomes.ensure_partitions('2024-03-01Z', '2024-06-01Z')")
    with holder(site, "LOCK TABLE flow_outcomes.figure IN SHARE UPDATE EXCLUSIVE MODE") as session:
        for _ in range(3):
            async with asyncio.timeout(1):
                await site.partitions.ensure(MARCH)
        [event] = site.events
        assert (event["event"], event["month"]) == ("partition_postponed", "2024-06")
        assert (
            f"process {session.info.backend_pid} (night report) holds ShareUpdateExclusiveLock" in event["reason"]
        )
        assert "began 0 s ago" in event["reason"]
    await site.partitions.ensure(MARCH)
    assert site.months()[-1] == "y2024m05"
    site.clock.advance(timedelta(seconds=AHEAD_RETRY))
    await site.partitions.ensure(MARCH)
    assert site.months()[-1] == "y2024m07"


async def test_a_month_of_the_scan_itself_that_cannot_be_created(site: Site) -> None:
    """The scan fails within seconds with the session's name, and no reader waits meanwhile."""
    with holder(site, "LOCK TABLE flow_outcomes.figure IN SHARE MODE"):
        waiting = asyncio.create_task(site.partitions.ensure(MARCH))
        while not site.run("SELECT 1 FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        site.run("SET statement_timeout = '500ms'; SELECT count(*) FROM flow_outcomes.flow_outcome")
        with pytest.raises(PartitionLockedError, match=r"2024-03 .* \(night report\) holds ShareLock on figure"):
            await waiting
    await site.partitions.ensure(MARCH)
    assert site.months()[0] == "y2024m03"


async def test_a_partition_that_was_dropped_or_detached(site: Site) -> None:
    """A dropped one is created again; a detached one is reported, and delays only the scans of its month."""
    await site.partitions.ensure(MARCH)
    site.run("DROP TABLE flow_outcomes.figure_y2024m03")
    site.run("ALTER TABLE flow_outcomes.figure DETACH PARTITION flow_outcomes.figure_y2024m05")
    await site.partitions.ensure(MARCH)
    assert site.months() == ["y2024m03", "y2024m04", "y2024m06", "y2024m07"]
    [event] = site.events
    assert "flow_outcomes.figure_y2024m05 is not a partition of flow_outcomes.figure" in event["reason"]
    with pytest.raises(StorageError, match="figure_y2024m05 is not a partition"):
        await site.partitions.ensure(Span(MARCH.end + AHEAD / 2, MARCH.end + AHEAD / 2 + timedelta(days=1)))

"""What a merge does, rolled back: whether the role and the schema's owner have every right that it needs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg

from service.clock import SystemClock
from service.errors import FlowOutcomesError
from service.model import (
    FlowBucket,
    Granularity,
    NormalisedPage,
    OutcomeRow,
    Query,
    Reject,
    Scan,
    Span,
    Window,
)
from service.postgres.lease import Lease
from service.postgres.merge.buffer import ScanBuffer
from service.postgres.merge.record import ScanRecord
from service.postgres.merge.transaction import Merge
from service.postgres.pool import Connection, Database, explain, storage_problem
from service.postgres.storage import full_disk

_ORG = " check"  # no name of an org begins with a space
_DAY = Span(datetime(1999, 1, 1, tzinfo=UTC), datetime(1999, 1, 2, tzinfo=UTC))  # a month without partitions
_COUNTS = (3, 4, None)  # the second merge archives and restates, the third has a rejected entry


async def rehearse(connection: Connection) -> str:
    """Run three merges of an org that does not exist, and roll them back; why they failed, or empty."""
    try:
        async with connection.transaction(force_rollback=True):
            await connection.execute(_CREATE_ORG, {"org": _ORG})
            await connection.execute(_CREATE_PARTITIONS, {"start": _DAY.start, "end": _DAY.end})
            for number, count in enumerate(_COUNTS, start=1):
                await _merge(connection, number, count)
                await connection.execute("DISCARD TEMP")  # they are emptied by a commit alone
        return await full_disk(connection)
    except psycopg.Error as error:
        if connection.closed:
            raise
        return storage_problem(error) or f"a merge is rejected: {explain(error)}"
    except FlowOutcomesError as error:
        return f"a merge failed: {error}"


async def _merge(connection: Connection, number: int, count: int | None) -> None:
    clock = SystemClock()
    query = Query(_ORG, _DAY, Granularity.DAILY, "UTC", (), 1, None, _DAY)
    window = Window(_ORG, "ad hoc", None, _DAY, "daily", Granularity.DAILY, _DAY.end)
    buffer = ScanBuffer(Database("", size=1, application_name=""), _ORG)
    row = OutcomeRow(FlowBucket("f", *_DAY), "n", count, None, rejected=count is None)
    rejects = [Reject("check", "{}", "f", _DAY.start, "n")] if count is None else []
    await buffer.add(NormalisedPage([row], rejects))
    record = ScanRecord(
        scan=Scan((window,), (query,), timedelta(days=31)),
        buckets=[_DAY],
        flows=(),
        query_hash="",
        began_at=clock.now(),
        pages=1,
        entries=1,
        cycle=f"check {number}",
        number=number,
        began_monotonic=clock.monotonic(),
    )
    lease = Lease(_ORG, 1, 0.0, clock.monotonic() + 60, clock, asyncio.Event())
    await Merge(connection, record, buffer, clock).run(lease)


_CREATE_ORG = "INSERT INTO flow_outcomes.org (org, epoch) VALUES (%(org)s, 1)"
_CREATE_PARTITIONS = "SELECT flow_outcomes.ensure_partitions(%(start)s, %(end)s)"

"""Killed at whatever instant: a reader never sees part of a window, and the next run makes all of it good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import psycopg

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import Program, expected, figures, today

FLOWS, DAYS = 8, 20
# One statement, one snapshot: each window with the rows that stand in it, and those that lie in no window.
LOOK = """
    SELECT w.state, count(f.flow_id)
    FROM flow_outcomes.extraction_window w
    LEFT JOIN flow_outcomes.flow_outcome f ON f.org = w.org AND f.bucket_start >= w.window_start
         AND f.bucket_start < w.window_end AND f.outcome_count IS NOT NULL
    GROUP BY w.org, w.window_start, w.window_end, w.state
"""


def centre() -> StaticCentre:
    """Each flow reports three outcomes each day, so that every window has as many rows."""
    found = StaticCentre()
    for back in range(1, DAYS + 2):
        for flow in range(FLOWS):
            hour = today() - timedelta(days=back, hours=-flow)
            found.put(f"flow-{flow}", hour, {"A": back * 10 + flow, "Ж": flow, "c d": 1})
    return found


@asynccontextmanager
async def reader(dsn: str) -> AsyncIterator[set[tuple[str, int]]]:
    """Looks at the tables all the while, and keeps every (state, rows) that a window was seen with."""
    seen: set[tuple[str, int]] = set()

    async def look() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(LOOK)
                seen.update([(state, rows) for state, rows in await cursor.fetchall()])
                await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that only looking tells."""
    async with asyncio.timeout(60):
        while not happened():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.002)


async def test_killed_at_several_instants(program: Program) -> None:
    """A window's rows and its mark are seen together or not at all, however often the process is killed."""
    orgs = {"acme": SimulatedOrg(centre=centre(), requests_per_second=None, latency=0.02)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, reader(program.dsn) as seen:
        program.configure(
            simulator,
            orgs={"acme": {"page_size": 3, "requests_per_second": 400}},
            jobs={"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P2D"}},
        )
        watching = psycopg.connect(program.dsn, autocommit=True)
        instants: list[Callable[[], bool]] = [
            lambda: len(simulator.arrivals) > 0,
            lambda: len(simulator.arrivals) > asked + 4,
            lambda: ("complete", FLOWS * 3) in seen,
            lambda: len(simulator.arrivals) > asked + 25,
            lambda: _merging(watching),
        ]
        for instant in instants:
            asked = len(simulator.arrivals)
            running = await program.start("run", "--once")
            await until(instant)
            running.kill()
            assert (await running.end()).code == -9
        watching.close()
        (left,) = program.rows(
            "SELECT count(*) AS unfinished FROM flow_outcomes.extraction_window WHERE state <> 'complete'"
        )
        assert left["unfinished"] > 0, "killed too late to tell anything"
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, "")
        windows = program.windows()
        assert {each["state"] for each in windows} == {"complete"}
        start, end = windows[0]["window_start"], windows[-1]["window_end"]
        days = [
            (start + timedelta(days=day), start + timedelta(days=day + 1)) for day in range((end - start).days)
        ]
        truth = simulator.truth(start, end, "daily")
        assert figures(program.stored("acme", "daily")) == expected(truth, days)
        assert simulator.in_flight_violations == 0
    assert seen <= {("pending", 0), ("running", 0), ("complete", FLOWS * 3)}, seen
    assert len(seen) == 3
    for table in ("staging", "staging_reject", "restatement"):
        assert program.rows(f"SELECT * FROM flow_outcomes.{table}") == []


def _merging(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether a merge is under way just now."""
    found = connection.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state IN ('active', 'idle in transaction') AND query ~ 'scan_bucket|scanned|incoming'"
    ).fetchone()
    return found is not None


async def test_a_backfill_goes_on_after_a_kill(program: Program) -> None:
    """A backfill that was killed is completed by asking for it again, and what was stored is not read twice."""
    found = StaticCentre()
    first = datetime.fromisoformat("2008-01-01T00:00:00+00:00")
    for year in range(2008, 2022):
        for month in range(1, 13):
            found.put("f1", first.replace(year=year, month=month), {"A": year, "B": month})
    orgs = {"acme": SimulatedOrg(centre=found, requests_per_second=None, latency=0.05)}
    span = ("backfill", "--org", "acme", "--from", "2008-01-01", "--to", "2022-01-01", "--granularity", "monthly")
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, reader(program.dsn) as seen:
        program.configure(simulator, orgs={"acme": {"page_size": 4, "concurrency": 1}})
        running = await program.start(*span)
        await until(lambda: ("complete", 84 * 2) in seen)
        running.kill()
        await running.end()
        before = {each["window_start"]: each for each in program.windows()}
        assert sorted(each["state"] == "complete" for each in before.values()) == [False, True]
        ended = await program.run(*span)
        assert (ended.code, ended.out) == (0, "stored 2 of 2 windows\n")
        windows = program.windows()
        assert {each["state"] for each in windows} == {"complete"}
        for each in windows:
            former = before[each["window_start"]]
            if former["state"] == "complete":
                assert each["completed_at"] == former["completed_at"]
        assert len([key for key, row in program.stored("acme", "monthly").items() if row["outcome_count"]]) == 336
    assert seen <= {("pending", 0), ("running", 0), ("complete", 84 * 2)}, seen

"""A killed process: a reader never sees part of a window, and the next run completes all windows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import psycopg

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import Program, expected, figures, today

FLOWS, DAYS = 8, 20
# Each window with its number of rows. One statement, so one snapshot.
WINDOW_ROWS = """
    SELECT w.state, count(f.flow_id)
    FROM flow_outcomes.extraction_window w
    LEFT JOIN flow_outcomes.flow_outcome f ON f.org = w.org AND f.bucket_start >= w.window_start
         AND f.bucket_start < w.window_end AND f.outcome_count IS NOT NULL
    GROUP BY w.org, w.window_start, w.window_end, w.state
"""


def centre() -> StaticCentre:
    """A centre in which each flow reports three outcomes a day, so that all windows have equally many rows."""
    result = StaticCentre()
    for back in range(1, DAYS + 2):
        for flow in range(FLOWS):
            hour = today() - timedelta(days=back, hours=-flow)
            result.put(f"flow-{flow}", hour, {"A": back * 10 + flow, "Ж": flow, "c d": 1})
    return result


@asynccontextmanager
async def reader(dsn: str) -> AsyncIterator[set[tuple[str, int]]]:
    """Read the tables continuously and yield every (state, rows) of a window so far."""
    seen: set[tuple[str, int]] = set()

    async def read() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            while True:
                cursor = await connection.execute(WINDOW_ROWS)
                seen.update([(state, rows) for state, rows in await cursor.fetchall()])
                await asyncio.sleep(0.02)

    reading = asyncio.create_task(read())
    try:
        yield seen
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def wait_until(true: Callable[[], bool]) -> None:
    """Wait until ``true`` returns True."""
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


async def test_killed_at_several_instants(program: Program) -> None:
    """A window's rows and its state become visible together, however often the process is killed."""
    orgs = {"acme": SimulatedOrg(centre=centre(), requests_per_second=None, latency=0.02)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, reader(program.dsn) as seen:
        program.configure(
            simulator,
            orgs={"acme": {"page_size": 3, "requests_per_second": 400}},
            jobs={"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P2D"}},
        )
        connection = psycopg.connect(program.dsn, autocommit=True)
        instants: list[Callable[[], bool]] = [
            lambda: len(simulator.arrivals) > 0,
            lambda: len(simulator.arrivals) > requests + 4,
            lambda: ("complete", FLOWS * 3) in seen,
            lambda: len(simulator.arrivals) > requests + 25,
            lambda: _is_merging(connection),
        ]
        for instant in instants:
            requests = len(simulator.arrivals)
            running = await program.start("run", "--once")
            await wait_until(instant)
            running.kill()
            assert (await running.end()).code == -9
        connection.close()
        (left,) = program.rows(
            "SELECT count(*) AS unfinished FROM flow_outcomes.extraction_window WHERE state <> 'complete'"
        )
        assert left["unfinished"] > 0, "the process was killed too late"
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


def _is_merging(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Return whether a merge is running."""
    row = connection.execute(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND state IN ('active', 'idle in transaction') AND query ~ 'pg_temp.scan_'"
    ).fetchone()
    return row is not None


async def test_a_killed_backfill_is_resumed(program: Program) -> None:
    """The same command completes a killed backfill and does not extract complete windows again."""
    years = StaticCentre()
    first = datetime.fromisoformat("2008-01-01T00:00:00+00:00")
    for year in range(2008, 2022):
        for month in range(1, 13):
            years.put("f1", first.replace(year=year, month=month), {"A": year, "B": month})
    orgs = {"acme": SimulatedOrg(centre=years, requests_per_second=None, latency=0.05)}
    span = ("backfill", "--org", "acme", "--from", "2008-01-01", "--to", "2022-01-01", "--granularity", "monthly")
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator, reader(program.dsn) as seen:
        program.configure(simulator, orgs={"acme": {"page_size": 4, "concurrency": 1}})
        running = await program.start(*span)
        await wait_until(lambda: ("complete", 84 * 2) in seen)
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

"""Wrong clocks of the process, the database or the API: no future figure is stored, none is lost."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.postgres.embedded.binaries import ProcessOptions, User
from service.postgres.embedded.server import Embedded
from service.simulator import Fault, Faults, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Program, Row, figures, today

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DAILY = {"daily": {"since": f"{today() - 6 * DAY:%Y-%m-%d}", "off_peak": None}}
HOURLY = {
    "hourly": {
        "window": "hour",
        "granularity": "hourly",
        "since": f"{today() - DAY:%Y-%m-%d}",
        "off_peak": None,
    }
}

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed: apt-get install faketime")


def simulator(**faults: Fault) -> Simulator:
    org = SimulatedOrg(centre=GeneratedCentre(seed=4, flows=4), requests_per_second=None, faults=Faults(**faults))
    return Simulator(SimulatorConfig(orgs={"acme": org}))


def shifted_clock(by: str) -> dict[str, str]:
    """Return the environment that shifts a program's wall clock, not its monotonic clock."""
    return {"LD_PRELOAD": str(LIBRARY), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "TZ": "UTC"}


class ShiftedClock:
    """The wall clock of a running program, which the test can set."""

    def __init__(self, folder: Path, by: str) -> None:
        self._file = folder / "faketime"
        self.set(by)

    def set(self, by: str) -> None:
        self._file.write_text(f"{by}\n")

    @property
    def environment(self) -> dict[str, str]:
        environment = shifted_clock("") | {"FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1"}
        del environment["FAKETIME"]
        return environment


def unsettled(program: Program) -> list[Row]:
    """Return complete windows and stored figures that have not settled."""
    now = datetime.now(UTC)
    return [
        *(row for row in program.windows() if row["state"] == "complete" and row["window_end"] + HOUR > now),
        *program.rows("SELECT * FROM flow_outcomes.flow_outcome WHERE bucket_end > %s", now - HOUR),
    ]


def settled(program: Program) -> list[Row]:
    now = datetime.now(UTC)
    return [row for row in program.windows() if row["window_end"] + HOUR <= now]


async def wait_until(true: Callable[[], object], what: str) -> None:
    for _ in range(600):
        if true():
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"timed out waiting for {what}")


async def status(program: Program) -> Mapping[str, Any]:
    ended = await program.run("status", "--json")
    assert ended.code == 0, ended.err
    jobs: Mapping[str, Any] = json.loads(ended.out)["orgs"]["acme"]["jobs"]
    return jobs


@pytest.mark.parametrize(("jobs", "by"), [(DAILY, "+12d"), (HOURLY, "+8h")])
async def test_a_process_clock_that_is_ahead(program: Program, jobs: Mapping[str, object], by: str) -> None:
    """``--once`` stores what has settled, and exits 1 for windows that wait for the API's clock."""
    async with simulator() as api:
        program.configure(api, jobs=jobs)
        ended = await program.run("run", "--once", environment=shifted_clock(by))
        assert ended.code == 1, ended.err
        assert unsettled(program) == []
        assert {row["state"] for row in settled(program)} == {"complete"}, ended.out + ended.err
        assert len(ended.find_events("clock_doubted")) == 1
        waiting = [row for row in program.windows() if row["state"] != "complete"]
        assert waiting
        assert all("not settled" in row["last_error"] for row in waiting)
        ended = await program.run("run", "--once")
        assert ended.code == 0, ended.err
        assert unsettled(program) == []
        assert not ended.find_events("clock_doubted")
        for gaps in (await status(program)).values():
            assert gaps["gaps"] == []


async def test_a_clock_that_is_corrected_while_the_daemon_runs(program: Program) -> None:
    """Due windows are computed again at once, and no unsettled window is complete."""
    clock = ShiftedClock(program.folder, "+12d")
    async with simulator() as api:
        program.configure(api, jobs=DAILY, http={"port": 0})
        daemon = await program.start("run", environment=clock.environment)
        await wait_until(lambda: any("window_postponed" in line for line in daemon.out), "a postponed window")
        await wait_until(
            lambda: len(past := settled(program)) and all(row["state"] == "complete" for row in past),
            "complete past windows",
        )
        assert unsettled(program) == []
        clock.set("+0")
        await wait_until(lambda: any("clock_stepped" in line for line in daemon.out), "clock_stepped")
        daily = (await status(program))["daily"]
        assert daily["newest_complete"].startswith(f"{today():%Y-%m-%d}") or datetime.now(UTC).hour == 0
        daemon.process.terminate()
        assert (await daemon.end()).code == 0


async def test_a_process_clock_that_is_behind(program: Program) -> None:
    """Complete windows stay complete, and their figures stay stored."""
    async with simulator() as api:
        program.configure(api, jobs={"daily": {**DAILY["daily"], "since": str((today() - 20 * DAY).date())}})
        assert (await program.run("run", "--once")).code == 0
        before, stored = program.windows(), figures(program.stored("acme", "daily"))
        ended = await program.run("run", "--once", environment=shifted_clock("-12d"))
        assert ended.code == 0, ended.err
        assert len(ended.find_events("clock_doubted")) == 1
        assert not ended.find_events("window_reopened")
        assert {row["state"] for row in program.windows()} == {"complete"}
        assert len(program.windows()) == len(before)
        assert figures(program.stored("acme", "daily")) == stored
        for row in program.windows():  # by the API's clock, not by the one that is behind
            assert row["completed_at"] >= row["window_end"] + HOUR


@pytest.mark.parametrize("value", ["absent", "yesterday", "Mon, 99 Foo 2026 99:99:99 GMT"])
async def test_without_a_date_the_earlier_clock_decides(program: Program, value: str) -> None:
    """Without a valid Date the database's clock decides if the process's clock is ahead."""
    async with simulator(date=Fault(value)) as api:
        program.configure(api, jobs=DAILY)
        ended = await program.run("run", "--once", environment=shifted_clock("+12d"))
        assert api.fired["date"]
        assert ended.code == 1, ended.err
        assert unsettled(program) == []
        assert {row["state"] for row in settled(program)} == {"complete"}, ended.out + ended.err


async def test_an_api_clock_that_is_behind(program: Program) -> None:
    """Windows wait until the API's Date is past their settling time."""
    async with simulator(date=Fault(-3 * 86400)) as api:
        program.configure(api, jobs=DAILY)
        ended = await program.run("run", "--once")
        assert ended.code == 1
        complete = [row for row in program.windows() if row["state"] == "complete"]
        assert complete
        assert all(row["window_end"] + HOUR <= datetime.now(UTC) - 3 * DAY for row in complete)
        api.switch("date", None)
        assert (await program.run("run", "--once")).code == 0
        assert {row["state"] for row in program.windows()} == {"complete"}


async def test_an_api_clock_that_is_ahead(program: Program) -> None:
    """No additional window is due: the process's clock decides what is due."""
    async with simulator(date=Fault(12 * 86400)) as api:
        program.configure(api, jobs=DAILY)
        ended = await program.run("run", "--once")
        assert ended.code == 0, ended.err
        assert api.fired["date"]
        assert len(ended.find_events("clock_doubted")) == 1
        assert unsettled(program) == []


@contextmanager
def database_with_shifted_clock(folder: Path, by: str) -> Iterator[str]:
    """Start a PostgreSQL in this folder with a shifted clock."""
    process = User.process

    def process_with_shifted_clock(user: User, cwd: Path, *, dies_with_parent: bool = False) -> ProcessOptions:
        result = process(user, cwd, dies_with_parent=dies_with_parent)
        result["env"] |= shifted_clock(by)
        return result

    server = Embedded(folder, durable=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(User, "process", process_with_shifted_clock)
        dsn = server.start()
    try:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        assert abs(row[0] - datetime.now(UTC)) > 11 * DAY or by == "+0"
        yield dsn
    finally:
        server.stop()


@pytest.fixture
def database_folder() -> Iterator[Path]:
    """A folder for a PostgreSQL of this test."""
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-clock-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("by", ["+12d", "-12d"])
async def test_a_wrong_database_clock(tmp_path: Path, database_folder: Path, by: str) -> None:
    """It affects neither what is stored nor the stored times."""
    with database_with_shifted_clock(database_folder, by) as dsn:
        async with Program(tmp_path, dsn) as program, simulator() as api:
            program.configure(api, jobs=DAILY)
            for _ in range(2):
                ended = await program.run("run", "--once")
                assert ended.code == 0, ended.err
                assert len(ended.find_events("clock_doubted")) == 1
                assert not ended.find_events("window_reopened")
            assert unsettled(program) == []
            for row in program.windows():
                assert row["state"] == "complete"
                assert row["window_end"] + HOUR <= row["completed_at"] <= datetime.now(UTC)


async def test_a_later_scan_supersedes_after_a_database_clock_that_was_ahead(
    tmp_path: Path, database_folder: Path
) -> None:
    """Scans are ordered by the org's own numbers, and no stored version is in the future."""
    nulls = "SELECT count(*) AS n FROM {} WHERE outcome_count IS NULL"
    nulls_seen = []
    async with Program(tmp_path, "") as program, simulator() as api:
        for by in ("+12d", "+0"):
            with database_with_shifted_clock(database_folder, by) as program.dsn:
                program.configure(api, jobs=DAILY)
                api.switch("withdrawn", Fault() if by == "+0" else None)
                assert (await program.run("run", "--once")).code == 0
                [now] = program.rows(nulls.format("flow_outcomes.flow_outcome"))
                [as_of] = program.rows(nulls.format("flow_outcomes.flow_outcome_as_of(now())"))
                assert now == as_of
                nulls_seen.append(now["n"])
        assert api.fired["withdrawn"]
    assert nulls_seen[1] > nulls_seen[0], "the later scan withdrew an outcome"


async def test_windows_that_were_completed_too_early_are_extracted_again(program: Program) -> None:
    """Windows that a former version completed too early are extracted again, and their nulls corrected."""
    async with simulator() as api:
        program.configure(api, jobs=DAILY)
        assert (await program.run("run", "--once")).code == 0
        truth = figures(program.stored("acme", "daily"))
        program.rows(
            "WITH early AS (UPDATE flow_outcomes.extraction_window"
            "               SET completed_at = window_end - interval '3 days'"
            "               WHERE window_end < now() - interval '4 days' RETURNING window_start)"
            " UPDATE flow_outcomes.figure SET state = 'withdrawn', outcome_count = NULL, outcome_percentage = NULL"
            " WHERE bucket_start IN (SELECT window_start FROM early) RETURNING 1"
        )
        assert figures(program.stored("acme", "daily")) != truth
        ended = await program.run("run", "--once")
        assert ended.code == 0, ended.err
        assert len(ended.find_events("window_reopened")) == 1
        assert figures(program.stored("acme", "daily")) == truth
        ended = await program.run("run", "--once")
        assert not ended.find_events("window_reopened"), "once"


@pytest.mark.parametrize("command", ["--once", "daemon"])
async def test_future_windows_are_reopened(tmp_path: Path, database_folder: Path, command: str) -> None:
    """Windows completed while all clocks were ahead are reopened once the clocks are correct."""
    async with Program(tmp_path, "") as program, simulator(date=Fault(12 * 86400)) as api:
        jobs = {"daily": {"since": f"{today() - 3 * DAY:%Y-%m-%d}", "off_peak": None}}
        with database_with_shifted_clock(database_folder, "+12d") as program.dsn:
            program.configure(api, jobs=jobs, http={"port": 0})
            assert (await program.run("run", "--once", environment=shifted_clock("+12d"))).code == 0
            assert unsettled(program), "no window was completed too early"
            assert api.fired["date"]
        api.switch("date", None)
        with database_with_shifted_clock(database_folder, "+0") as program.dsn:
            program.configure(api, jobs=jobs, http={"port": 0})
            if command == "--once":
                assert (await program.run("run", "--once")).code == 0
            else:
                daemon = await program.start("run")
                await wait_until(lambda: any('"cycle_finished"' in line for line in daemon.out), "a cycle")
                await wait_until(lambda: any("window_reopened" in line for line in daemon.out), "window_reopened")
                daemon.process.terminate()
                assert (await daemon.end()).code == 0
            now = datetime.now(UTC)
            assert [
                each for each in program.windows() if each["state"] == "complete" and each["window_end"] > now
            ] == []
            daily = (await status(program))["daily"]
            assert daily["newest_complete"] < f"{now:%Y-%m-%dT%H}"


async def test_a_step_during_a_merge(program: Program) -> None:
    """A merge that waits while the clock is corrected stores only what has settled."""
    clock = ShiftedClock(program.folder, "+12d")
    async with simulator() as api:
        program.configure(api, jobs=DAILY, http={"port": 0})
        program.rows("INSERT INTO flow_outcomes.org (org) VALUES ('acme') RETURNING 1")
        daemon = await program.start("run", environment=clock.environment)
        await wait_until(lambda: any('"org_acquired"' in line for line in daemon.out), "the org")
        with psycopg.connect(program.dsn) as connection:
            connection.execute("SELECT 1 FROM flow_outcomes.org WHERE org = 'acme' FOR UPDATE")
            await wait_until(
                lambda: program.rows(
                    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%FOR NO KEY%%'"
                ),
                "a waiting merge",
            )
            clock.set("+0")
            await asyncio.sleep(2)
        await wait_until(lambda: any("clock_stepped" in line for line in daemon.out), "clock_stepped")
        await wait_until(
            lambda: len(past := settled(program)) and all(row["state"] == "complete" for row in past),
            "complete past windows",
        )
        assert unsettled(program) == []
        daemon.process.terminate()
        await daemon.end()


async def test_a_stored_rate_limit_pause_is_at_most_an_hour(program: Program) -> None:
    """A pause that a wrong clock stored as twelve days lasts at most an hour."""
    async with simulator() as api:
        program.configure(api, jobs=DAILY)
        program.rows(
            "INSERT INTO flow_outcomes.org_lease (org, paused_until) VALUES ('acme', now() + interval '12 days')"
            " RETURNING 1"
        )
        await program.run("run", "--once")
        [lease] = program.rows("SELECT paused_until - now() AS left FROM flow_outcomes.org_lease")
        assert timedelta(0) < lease["left"] <= HOUR

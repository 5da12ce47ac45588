"""``flow-outcomes prune``: old months go, and nothing before them is requested, due or missing again."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.daemon import Daemon, Reader
from tests.support.program import TIMEOUT, Program, Row, today

DAY = timedelta(days=1)
OPEN = SimulatedOrg(requests_per_second=None, requests_per_minute=None)
BEFORE = (today().replace(day=1) - DAY).replace(day=1)
"""The start of the previous month: the prune date."""
PRUNE_DAY = BEFORE.date()
SINCE = BEFORE - 8 * DAY
FIGURES = (
    "SELECT * FROM flow_outcomes.{} WHERE bucket_start >= %s ORDER BY org, granularity, bucket_start, outcome_name"
)


def centre() -> StaticCentre:
    """A figure each hour, and one outcome that was last seen an hour before the prune date."""
    days = (today() - SINCE).days
    figures = {("f", SINCE + hour * timedelta(hours=1)): {"often": 1 + hour % 7} for hour in range(days * 24)}
    figures["f", BEFORE - timedelta(hours=1)]["once"] = 5
    return StaticCentre(figures)


def simulated(*timezones: str) -> SimulatorConfig:
    return SimulatorConfig(orgs={name(zone): replace(OPEN, timezone=zone, centre=centre()) for zone in timezones})


def name(timezone: str) -> str:
    return timezone.rpartition("/")[2].lower()


def configure(program: Program, simulator: Simulator, *timezones: str, **other: Any) -> None:  # noqa: ANN401 - of Program.configure
    jobs = {
        "daily": {"window": "day", "granularity": "daily"},
        "weekly": {"window": "week", "granularity": "hourly"},
        "monthly": {"window": "month", "granularity": "monthly"},
    }
    defaults = {"since": SINCE.date(), "lookback": "P80D", "off_peak": None}
    program.configure(
        simulator,
        orgs={name(zone): {"timezone": zone} for zone in timezones},
        jobs=other.pop("jobs", {job: {**defaults, **keys} for job, keys in jobs.items()}),
        **other,
    )


def correct(simulator: Simulator, timezone: str, at: datetime, count: int) -> None:
    figures = simulator.orgs[name(timezone)].settings.centre
    assert isinstance(figures, StaticCentre)
    figures.correct("f", at, "often", count)


async def prune(program: Program, *arguments: str, before: date = PRUNE_DAY) -> dict[str, Any]:
    ended = await program.run("prune", "--before", before.isoformat(), "--json", *arguments)
    assert (ended.code, ended.err) == (0, "")
    document: dict[str, Any] = json.loads(ended.out)
    return document


async def status(program: Program) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((await program.run("status", "--json")).out)
    return document["orgs"]  # type: ignore[no-any-return]


async def assert_nothing_missing(program: Program) -> None:
    for org in (await status(program)).values():
        assert org["pruned_before"] == f"{BEFORE:%Y-%m-%d}T00:00:00.000Z"
        assert {job: each["gaps"] for job, each in org["jobs"].items()} == {job: [] for job in org["jobs"]}


def rows(program: Program, source: str = "flow_outcome") -> list[Row]:
    return program.rows(FIGURES.format(source), BEFORE)


def as_of(program: Program, at: datetime) -> list[Row]:
    return rows(program, f"flow_outcome_as_of('{at.isoformat()}')")


def count(program: Program, relation: str, where: str = "true") -> int:
    [row] = program.rows(f"SELECT count(*) AS rows FROM flow_outcomes.{relation} WHERE {where}")
    found: int = row["rows"]
    return found


def now(program: Program) -> datetime:
    [row] = program.rows("SELECT clock_timestamp() AS at")
    at: datetime = row["at"]
    return at


def old(column: str) -> str:
    return f"{column} < '{BEFORE.isoformat()}'"


RELATIONS = ("flow_outcome", "flow_execution", "flow_milestone")
ZONES = ("UTC", "Europe/Berlin", "America/New_York")


@pytest.mark.counts_days
async def test_months_go_and_everything_after_them_stays(program: Program) -> None:
    """In several time zones: later figures are as before, also as of then, and older ones do not return."""
    async with Simulator(simulated(*ZONES)) as simulator:
        configure(program, simulator, *ZONES)
        assert (await program.run("run", "--once")).code == 0
        between = now(program)
        for zone in ZONES:
            correct(simulator, zone, BEFORE + 2 * DAY, 1000)
        assert (await program.run("run", "--once")).code == 0
        kept, kept_as_of, kept_now = rows(program), as_of(program, between), now(program)
        assert kept != kept_as_of
        assert sum(row["outcome_name"] == "once" and row["outcome_count"] is None for row in kept) > 100
        old_figures = count(program, "figure", old("bucket_start"))

        shown = await prune(program)
        assert (shown["removed"], sum(each["figures"] for each in shown["months"])) == (False, old_figures)
        assert count(program, "figure", old("bucket_start")) == old_figures
        assert {row["pruned_before"] for row in program.rows("SELECT * FROM flow_outcomes.org")} == {None}

        removed = await prune(program, "--yes", before=PRUNE_DAY + 14 * DAY)
        assert (removed["removed"], removed["months"]) == (True, shown["months"])
        assert f"figure_{SINCE:y%Ym%m}" in removed["partitions_dropped"]
        for table in ("figure", "figure_history", "bucket_coverage", "restated"):
            assert count(program, table, old("bucket_start")) == 0, table
        assert count(program, "extraction_window", old("window_start")) == 0
        assert count(program, "pruned_month") == len(
            {(e["org"], e["granularity"], e["month"]) for e in shown["months"]}
        )
        assert (rows(program), as_of(program, between), as_of(program, kept_now)) == (kept, kept_as_of, kept)
        await assert_nothing_missing(program)
        plan = json.loads((await program.run("plan", "--json")).out)
        assert all(
            job["backlog"] == 0 and (job["first"] or "9") >= BEFORE.isoformat()[:19]
            for org in plan["orgs"].values()
            for job in org["jobs"].values()
        )

        correct(simulator, "UTC", BEFORE, 2000)
        ended = await program.run("run", "--once")
        assert ended.code == 0
        complete = ended.find_events("window_complete")
        assert complete
        assert min(datetime.fromisoformat(each["window_start"]) for each in complete) >= BEFORE
        assert count(program, "figure", old("bucket_start")) == 0
        assert count(program, "extraction_window", old("window_start")) == 0
        after = rows(program)
        nulls = [[row for row in each if row["outcome_name"] == "once"] for each in (kept, after)]
        assert [(row["org"], row["bucket_start"]) for row in nulls[0]] == [
            (row["org"], row["bucket_start"]) for row in nulls[1]
        ]
        changed = [row for row in after if row["org"] == "utc" and row["bucket_start"] == BEFORE]
        assert {row["outcome_count"] for row in changed if row["granularity"] == "hourly"} >= {2000}
        assert as_of(program, between) == kept_as_of
        await assert_nothing_missing(program)
        assert "figures" not in (await program.run("check")).out.replace("0 figures", "")

        again = await prune(program, "--yes")
        assert (again["months"], again["windows"], again["partitions_dropped"]) == ([], {}, [])
        assert rows(program) == after


@pytest.mark.counts_days
async def test_beside_a_running_daemon(program: Program) -> None:
    """It learns the date from the database; readers and cycles go on; what is requested before it is refused."""
    entry = {"org": "utc", "from": SINCE.date(), "to": (BEFORE + 3 * DAY).date()}
    jobs = {
        job: {"since": SINCE.date(), "off_peak": None, "granularity": granularity, "lookback": "P3D"}
        for job, granularity in (("daily", "daily"), ("hourly", "hourly"))
    }
    async with Simulator(simulated("UTC")) as simulator:
        configure(program, simulator, "UTC", jobs=jobs)
        daemon = await Daemon.start(program)
        windows = 2 * (today() - SINCE).days
        await daemon.wait_until(
            lambda: count(program, "extraction_window", "state = 'complete'") == windows, "all"
        )
        kept = rows(program)
        async with Reader(lambda: program.dsn):
            removed = await prune(program, "--yes")
        assert removed["partitions_dropped"]
        assert rows(program) == kept

        configure(program, simulator, "UTC", jobs=jobs, ad_hoc={"again": entry})
        daemon.send(signal.SIGHUP)
        refused = await daemon.wait_for_event("ad_hoc_refused", org="utc", entry="again")
        assert f"pruned before {BEFORE:%Y-%m-%d}" in refused["reason"]
        [shown] = (await status(program))["utc"]["ad_hoc"]["refused"]
        assert (shown["name"], shown["reason"]) == ("again", refused["reason"])
        assert "again: refused: " in (await program.run("status")).out

        span = ("--org", "utc", "--from", SINCE.date().isoformat(), "--to", today().date().isoformat())
        backfill = await program.run("backfill", *span)
        assert backfill.code == 2
        assert backfill.err.startswith("--from: utc was pruned before")
        began = now(program)
        assert (await program.run("trigger")).code == 0
        since = f"completed_at > '{began.isoformat()}'"
        assert count(program, "extraction_window", f"{since} AND job IS NOT NULL") >= 6
        later = ("--org", "utc", "--from", BEFORE.date().isoformat(), "--to", today().date().isoformat())
        assert (await program.run("backfill", *later, "--granularity", "daily")).code == 0
        await assert_nothing_missing(program)
        assert rows(program)[0]["bucket_start"] == BEFORE
        assert (count(program, "figure", old("bucket_start")), count(program, "ad_hoc_entry")) == (0, 0)
        for path in (f"/api/calendar?org=utc&from={SINCE.date()}&to={today().date()}", "/api/status", "/api/now"):
            code, body = await daemon.get(path)
            assert (code, '"N' in body) == (200, False), (path, body)
        assert {event["event"] for event in daemon.events if event["level"] == "error"} == {"ad_hoc_refused"}
        await daemon.end()


async def test_monthly_figures_can_stay(program: Program) -> None:
    """With ``--keep-monthly`` they are still read and complete, and are not extracted again."""
    async with Simulator(simulated("UTC")) as simulator:
        configure(program, simulator, "UTC")
        assert (await program.run("run", "--once")).code == 0
        monthly = program.stored("utc", "monthly")
        assert len(monthly) == 4
        removed = await prune(program, "--keep-monthly", "--yes")
        assert {each["granularity"] for each in removed["months"]} == {"hourly", "daily"}
        assert removed["partitions_dropped"] == [f"figure_history_{SINCE:y%Ym%m}"]
        assert program.stored("utc", "monthly") == monthly
        assert count(program, "figure", f"{old('bucket_start')} AND granularity <> 'monthly'") == 0
        assert (await program.run("run", "--once")).code == 0
        attempts = {
            each["window_start"]: each["attempts"] for each in program.windows() if each["job"] == "monthly"
        }
        assert attempts == {SINCE.replace(day=1): 1, BEFORE: 2}
        assert program.stored("utc", "monthly") == monthly
        await assert_nothing_missing(program)
        assert "are stored" not in (await program.run("check")).out

        rest = await prune(program, "--yes")
        assert {each["granularity"] for each in rest["months"]} == {"monthly"}
        assert rest["partitions_dropped"] == [f"figure_{SINCE:y%Ym%m}"]
        assert len(program.stored("utc", "monthly")) == 2


async def test_an_org_without_figures_has_the_date_too(program: Program) -> None:
    """A window that contains the date begins there; a later ``since`` stays."""
    async with Simulator(simulated("UTC")) as simulator:
        later = {"since": (BEFORE + 5 * DAY).date(), "off_peak": None}
        weekly = {"since": SINCE.date(), "off_peak": None, "window": "week"}
        configure(program, simulator, "UTC", jobs={"later": later, "weekly": weekly})
        await prune(program, "--yes")
        assert (await program.run("run", "--once")).code == 0
        first = {
            job: min(e["window_start"] for e in program.windows() if e["job"] == job)
            for job in ("later", "weekly")
        }
        assert first == {"later": BEFORE + 5 * DAY, "weekly": BEFORE}
        await assert_nothing_missing(program)


@pytest.mark.parametrize(
    ("before", "fault"),
    [("yesterday", "must be a date"), ((today() + 2 * DAY).date().isoformat(), "must not be later than today")],
)
async def test_a_date_that_is_none(program: Program, before: str, fault: str) -> None:
    """Exit 2 with one line."""
    async with Simulator(simulated("UTC")) as simulator:
        configure(program, simulator, "UTC")
        ended = await program.run("prune", "--before", before, "--yes")
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert ended.err.startswith("--before: ")
    assert fault in ended.err


async def test_a_role_that_owns_nothing_deletes_the_rows(program: Program) -> None:
    """The daemon's role may not drop partitions."""
    async with Simulator(simulated("UTC")) as simulator:
        configure(program, simulator, "UTC")
        assert (await program.run("run", "--once")).code == 0
        kept = rows(program)
        role = f"pruner_{conninfo_to_dict(program.dsn)['dbname']}"
        with psycopg.connect(program.dsn, autocommit=True) as connection:
            connection.execute(
                f"CREATE ROLE {role} LOGIN PASSWORD 'a-password'; GRANT USAGE ON SCHEMA flow_outcomes TO {role};"
                f" GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA flow_outcomes TO {role}".encode()
            )
        owner, program.dsn = program.dsn, make_conninfo(program.dsn, user=role, password="a-password")
        configure(program, simulator, "UTC")
        assert (await prune(program, "--yes"))["partitions_dropped"] == []
        program.dsn = owner
        assert (count(program, "figure", old("bucket_start")), rows(program)) == (0, kept)


def partitions(program: Program) -> Sequence[str]:
    return [
        row["relname"]
        for row in program.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'flow_outcomes'::regnamespace AND relkind = 'r'"
            " AND relname ~ 'y[0-9]{4}m[0-9]{2}$' ORDER BY 1"
        )
    ]


async def test_a_reader_that_holds_a_lock(program: Program) -> None:
    """It reads on, others do too, and the removal continues when its transaction ends."""
    async with Simulator(simulated("UTC")) as simulator:
        configure(program, simulator, "UTC")
        assert (await program.run("run", "--once")).code == 0
        months = {f"{table}_{SINCE:y%Ym%m}" for table in ("figure", "figure_history")}
        assert months <= set(partitions(program))
        with psycopg.connect(program.dsn) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            total = reader.execute("SELECT count(*) FROM flow_outcomes.figure").fetchone()
            running = await program.start("prune", "--before", BEFORE.date().isoformat(), "--yes")
            pending = "SELECT FROM pg_inherits WHERE inhdetachpending"
            async with asyncio.timeout(TIMEOUT):
                while not program.rows(pending):
                    assert running.process.returncode is None
                    await asyncio.sleep(0.02)
            assert count(program, "flow_outcome") > 0
            assert reader.execute("SELECT count(*) FROM flow_outcomes.figure").fetchone() == total
        assert (await running.end()).code == 0
        assert not months & set(partitions(program))
        assert count(program, "figure", old("bucket_start")) == 0


async def test_every_measure_goes(program: Program) -> None:
    """Executions and milestones too, and nothing of them reads as missing."""
    measures = ("outcomes", "executions", "milestones")
    job = {"since": SINCE.date(), "off_peak": None, "lookback": "P80D"}
    async with Simulator(SimulatorConfig(orgs={"utc": replace(OPEN, flows=2)})) as simulator:
        org = {"utc": {"api": "flow-aggregates"}}
        program.configure(simulator, orgs=org, jobs={each: {**job, "measure": each} for each in measures})
        assert (await program.run("run", "--once")).code == 0
        kept = {each: count(program, each, f"NOT {old('bucket_start')}") for each in RELATIONS}
        assert all(count(program, each, old("bucket_start")) and kept[each] for each in RELATIONS)
        await prune(program, "--yes")
        await assert_nothing_missing(program)
        assert (await program.run("run", "--once")).code == 0
        assert {each: count(program, each) for each in RELATIONS} == kept
        await assert_nothing_missing(program)

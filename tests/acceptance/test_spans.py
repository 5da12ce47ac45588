"""Ad hoc spans and backfills, and the adjustments of their spans and granularities."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import Program, today

LONG_WEEK_ZONE = "America/New_York"


class RecordingCentre(StaticCentre):
    """A centre that records the spans that were read."""

    def __init__(self, *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **more)
        self.spans: set[tuple[int, int]] = set()

    def snapshot(self) -> RecordingCentre:
        """Return itself."""
        return self

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[tuple[str, str, int]]:
        """Record the span and return its counts."""
        self.spans.add((start, end))
        return super().count_outcomes(flow_id, start, end, at)


def centre() -> RecordingCentre:
    """A centre with one flow that has figures in a few hours of many years and of the last five days."""
    result = RecordingCentre()
    for year in range(2014, 2026):
        for month in (1, 4, 9):
            for day in (1, 12, 28):
                result.put("f1", datetime(year, month, day, 7, tzinfo=UTC), {"A": 10 * month + day, "B": 1})
    for back in range(1, 6):
        result.put("f1", today() - timedelta(days=back, hours=-3), {"A": back})
    return result


def utc(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


async def test_adjusted_spans(program: Program) -> None:
    """A long span is coarsened or split, a partial bucket widened, an unsettled end cut back; all is logged."""
    now = today()
    entries = {
        "ten_days": ("2024-01-01", "2024-01-11", "hourly"),
        "years": ("2023-01-01", "2024-02-05", "daily"),
        "long": ("2015-01-01", "2023-01-01", "monthly"),
        "half": ("2024-04-10", "2024-04-20", "monthly"),
        "ahead": (f"{now - timedelta(days=3):%Y-%m-%d}", f"{now + timedelta(days=4):%Y-%m-%d}", "daily"),
        "fine": ("2024-09-01", "2024-09-08", "auto"),
        "wide": ("2024-01-01", "2024-06-01", "auto"),
        "week": ("2024-10-31", "2024-11-07", "hourly"),
        "nothing": (f"{now:%Y-%m-%d}", f"{now + timedelta(days=2):%Y-%m-%d}", "daily"),
    }
    centres = {name: centre() for name in entries}
    orgs = {
        name: SimulatedOrg(
            centre=centres[name], requests_per_second=None, timezone=LONG_WEEK_ZONE if name == "week" else "UTC"
        )
        for name in entries
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={name: {"timezone": orgs[name].timezone} for name in entries},
            ad_hoc={
                f"entry-{name}": {"org": name, "from": start, "to": end, "granularity": granularity}
                for name, (start, end, granularity) in entries.items()
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        queries = {
            name: sum(each.org == name and each.kind == "query" for each in simulator.arrivals) for name in orgs
        }
        again = await program.run("run", "--once")
        assert (again.code, again.find_events("window_complete")) == (0, [])
        truth = {
            name: {
                (flow, start, outcome): count
                for each in program.windows(name)
                for (flow, start, outcome), (count, _) in simulator.truth(
                    each["window_start"], each["window_end"], each["granularity"], org=name
                ).items()
            }
            for name in entries
        }
    settled = (datetime.now(UTC) - timedelta(hours=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    week = utc(2024, 10, 31) + timedelta(hours=4)
    middle = week + timedelta(hours=84)
    adjusted_windows = {
        "ten_days": ("hourly", "daily", [(utc(2024, 1, 1), utc(2024, 1, 11))]),
        "years": ("daily", "monthly", [(utc(2023, 1, 1), utc(2024, 3, 1))]),
        "long": ("monthly", "monthly", [(utc(2015, 1, 1), utc(2019, 1, 1)), (utc(2019, 1, 1), utc(2023, 1, 1))]),
        "half": ("monthly", "monthly", [(utc(2024, 4, 1), utc(2024, 5, 1))]),
        "ahead": ("daily", "daily", [(now - timedelta(days=3), settled)]),
        "fine": ("auto", "hourly", [(utc(2024, 9, 1), utc(2024, 9, 8))]),
        "wide": ("auto", "daily", [(utc(2024, 1, 1), utc(2024, 6, 1))]),
        "week": ("hourly", "hourly", [(week, middle), (middle, week + timedelta(hours=169))]),
    }
    for name, (requested, granularity, spans) in adjusted_windows.items():
        windows = program.windows(name)
        assert [(each["window_start"], each["window_end"]) for each in windows] == spans, name
        assert {(each["requested_granularity"], each["granularity"]) for each in windows} == {
            (requested, granularity)
        }
        assert {(each["state"], each["job"]) for each in windows} == {("complete", None)}
        stored = {
            key: row["outcome_count"]
            for key, row in program.stored(name, granularity).items()
            if row["outcome_count"] is not None
        }
        assert stored == truth[name], name
        assert stored or name == "week", name
    assert program.windows("nothing") == []
    assert queries == dict.fromkeys(entries, 1) | {"long": 2, "week": 2, "nothing": 0}
    adjusted = {line["org"]: line for line in ended.find_events("granularity_adjusted")}
    assert set(adjusted) == {"ten_days", "years"}
    assert (adjusted["ten_days"]["requested"], adjusted["ten_days"]["granularity"]) == ("hourly", "daily")
    assert {line["org"] for line in ended.find_events("span_adjusted")} == {"years", "half", "ahead"}
    assert len(ended.find_events("span_adjusted", org="half", window_start="2024-04-01T00:00:00.000Z")) == 1


async def test_backfill(program: Program) -> None:
    """The result is one line; a complete span is extracted again; an invalid argument is one line and exit 2."""
    source = centre()
    orgs = {"acme": SimulatedOrg(centre=source, requests_per_second=None)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator)
        span = ("backfill", "--org", "acme", "--from", "2024-01-01", "--to", "2024-02-01")
        first = await program.run(*span)
        assert (first.code, first.out) == (0, "stored 1 of 1 window\n")
        source.correct("f1", datetime(2024, 1, 12, 7, tzinfo=UTC), "A", 1000)
        again = await program.run(*span)
        assert (again.code, again.out) == (0, "stored 1 of 1 window\n")
        assert len(again.find_events("outcome_restated", org="acme")) == 1
        future, unknown, turned, early, odd = await asyncio.gather(
            program.run("backfill", "--org", "acme", "--from", "2080-01-01", "--to", "2080-02-01"),
            program.run("backfill", "--org", "nobody", "--from", "2024-01-01", "--to", "2024-02-01"),
            program.run("backfill", "--org", "acme", "--from", "2024-02-01", "--to", "2024-02-01"),
            program.run("backfill", "--org", "acme", "--from", "1970-01-01", "--to", "2024-02-01"),
            program.run("backfill", "--org", "acme", "--from", "01.02.2024", "--to", "2024-02-01"),
        )
    rows = program.stored("acme", "daily")
    assert rows["f1", utc(2024, 1, 12), "A"]["outcome_count"] == 1000
    (window,) = program.windows("acme")
    assert (window["attempts"], window["state"]) == (2, "complete")
    assert future.code == 1
    for ended, key in ((unknown, "--org"), (turned, "--to"), (early, "--from"), (odd, "--from")):
        assert (ended.code, ended.out) == (2, ""), ended
        assert key in ended.err
        assert len(ended.err.splitlines()) == 1, ended.err


async def test_an_unfinished_span_follows_the_time_zone(program: Program) -> None:
    """After a change of the time zone an unfinished span is widened to bucket edges and blocks no other span."""
    org = SimulatedOrg(
        centre=centre(), timezone=LONG_WEEK_ZONE, requests_per_second=None, faults=Faults(server_error=Fault(503))
    )
    entry = {"org": "acme", "from": "2024-01-12", "to": "2024-01-13", "granularity": "daily"}
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        program.configure(simulator, orgs={"acme": {"breaker": {"failures": 1}}}, ad_hoc={"before": entry})
        ended = await program.run("run", "--once")
        assert (ended.code, simulator.orgs["acme"].fired["server_error"]) == (1, 1)
        simulator.switch("server_error", None, org="acme")
        later = {**entry, "from": "2024-04-12", "to": "2024-04-13"}
        program.configure(
            simulator, orgs={"acme": {"timezone": LONG_WEEK_ZONE}}, ad_hoc={"before": entry, "later": later}
        )
        ended = await program.run("run", "--once")
    assert (ended.code, ended.err) == (0, ""), ended.failures()
    assert len(ended.find_events("span_adjusted", org="acme")) == 1
    spans = [(each["window_start"], each["window_end"], each["state"]) for each in program.windows()]
    hour = timedelta(hours=1)
    assert spans == [
        (utc(2024, 1, 11) + 5 * hour, utc(2024, 1, 13) + 5 * hour, "complete"),
        (utc(2024, 4, 12) + 4 * hour, utc(2024, 4, 13) + 4 * hour, "complete"),
    ]
    counts = {key[1:]: row["outcome_count"] for key, row in program.stored("acme", "daily").items()}
    assert counts[utc(2024, 1, 12) + 5 * hour, "A"] == 22
    assert counts[utc(2024, 4, 12) + 4 * hour, "A"] == 52

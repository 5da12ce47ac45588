"""An invalid page fails its own window in that run, not other windows and not the next run."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import SECRET, Key, Program, expected, figures, today

FIRSTS = [date(2024, 1, 8), date(2024, 2, 5), date(2024, 3, 4)]
DAYS = 2
OPEN = SimulatedOrg(requests_per_second=None)

# a fault in the first window of an org, and a part of its last_error
FAULTS = {
    "missing_token": (Fault(page=2, times=1), "nextPageToken"),
    "repeated_token": (Fault(page=2, times=1), "twice"),
    "cursor_loop": (Fault(page=3, times=1), "twice"),
    "endless": (Fault(times=150), "100 pages in a row"),  # the next window has the other 50
    "truncated": (Fault(page=2, times=1), "truncated"),
    "not_json": (Fault(page=2, times=1), "an HTML page came instead of JSON"),
    "invalid_utf8": (Fault(page=2, times=1), "UTF-8"),
    "outcomes_array": (Fault(page=2, times=1), "array"),
    "missing_data": (Fault(page=2, times=1), "no data"),
    "redirect": (Fault(page=2, times=1), "redirect"),
    "gzip_bomb": (Fault(page=2, times=1), "64 MiB"),
    "deep_json": (Fault(page=2, times=1), "nested"),
    "duplicate_different": (Fault(page=2, times=1), "two different figures"),
    "bare": (Fault(page=1, times=1), "neither flow nor bucket"),
    "forbidden": (Fault(page=2, times=1), "Analytics > Query > Read"),
    "hostile_error": (Fault(page=2, times=1), "400"),
    "utc_cut": (Fault(times=1), "time zone America/New_York"),
    "throttled": (Fault(page=2, times=1, value="0"), ""),
    "server_error": (Fault(page=2, times=2), ""),
    "unauthorized": (Fault(page=2, times=1), ""),
    "connection_reset": (Fault(page=2, times=2), ""),
    "drip": (Fault(page=2, times=1, value=0.3), ""),
}
HARMLESS = {name for name, (_, error) in FAULTS.items() if not error}
ZONES = {"utc_cut": "America/New_York"}


def span(first: date, past: date) -> tuple[datetime, datetime]:
    return datetime(first.year, first.month, first.day, tzinfo=UTC), datetime(
        past.year, past.month, past.day, tzinfo=UTC
    )


async def test_an_invalid_page_fails_its_window_alone(program: Program) -> None:
    """Nothing of a window with an invalid page is stored; other windows are, and the next run completes it."""
    orgs = {
        name: replace(
            OPEN,
            faults=Faults(**{name: fault}),
            timezone=ZONES.get(name, "UTC"),
            client_secret=SECRET,
        )
        for name, (fault, _) in FAULTS.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={
                name: {
                    "page_size": 10,
                    "concurrency": 1,
                    "breaker": {"failures": 100},
                    "timezone": ZONES.get(name, "UTC"),
                }
                for name in FAULTS
            },
            ad_hoc={
                f"{name}-{number}": {
                    "org": name,
                    "from": first,
                    "to": first + timedelta(days=DAYS),
                    "granularity": "daily",
                }
                for name in FAULTS
                for number, first in enumerate(FIRSTS)
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (1, "")
        for name, (_, error) in FAULTS.items():
            assert simulator.orgs[name].fired[name], name
            first, *others = program.windows(name)
            assert [each["state"] for each in others] == ["complete"] * 2, (name, others)
            rows = program.stored(name, "daily")
            inside = [key for key in rows if first["window_start"] <= key[1] < first["window_end"]]
            if name in HARMLESS:
                assert (first["state"], first["last_error"]) == ("complete", None), (name, first)
                assert len(inside) > 20
                continue
            assert first["state"] == "failed", name
            assert error in first["last_error"], (name, first["last_error"])
            assert inside == [], name
            assert ended.find_events("window_failed", org=name, reason=first["last_error"]), name
        assert sum(1 for arrival in simulator.arrivals if arrival.kind == "moved") == 0
        forbidden = [each for each in simulator.arrivals if each.org == "forbidden" and each.status == 403]
        assert len(forbidden) == 1
        assert simulator.tokens_issued == len(FAULTS) + 1  # a rejected token is renewed once
        assert ended.peak < 400 * 2**20
        for name in FAULTS:
            simulator.switch(name, None)
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err, ended.find_events("window_failed")) == (0, "", [])
        assert len(ended.find_events("window_complete")) == len(FAULTS) - len(HARMLESS)
        for name in FAULTS:
            zone = ZONES.get(name, "UTC")
            stored = figures(program.stored(name, "daily"))
            windows = program.windows(name)
            assert {(each["state"], each["last_error"]) for each in windows} == {("complete", None)}
            truth: dict[Key, tuple[int, float]] = {}
            buckets: list[tuple[datetime, datetime]] = []
            for each in windows:
                start, end = each["window_start"], each["window_end"]
                truth |= simulator.truth(start, end, "daily", zone, org=name)
                buckets += [(start + timedelta(days=day), start + timedelta(days=day + 1)) for day in range(DAYS)]
            assert stored == expected(truth, buckets), name
        assert simulator.in_flight_violations == 0


async def test_a_complete_window_stays_complete(program: Program) -> None:
    """A later scan that fails or is completely empty once changes no figure; a second empty one does."""
    centre = StaticCentre(
        {("f1", today() - timedelta(days=back)): {"A": back, "B": 2} for back in range(1, DAYS + 2)}
    )
    async with Simulator(SimulatorConfig(orgs={"acme": replace(OPEN, centre=centre)})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": f"P{DAYS}D"}})
        assert (await program.run("run", "--once")).code == 0
        stored = program.stored("acme", "daily")
        simulator.switch("not_json", Fault())
        assert (await program.run("run", "--once")).code == 1
        windows = program.windows()
        assert {(each["state"], each["rows"]) for each in windows} == {("complete", 2)}
        assert all(each["attempts"] > 1 for each in windows)
        assert all("an HTML page came instead of JSON" in each["last_error"] for each in windows)
        simulator.switch("not_json", None)
        centre.clear()
        doubted = await program.run("run", "--once")
        assert (doubted.code, len(doubted.find_events("window_doubted"))) == (0, len(windows))
        assert {each["state"] for each in program.windows()} == {"complete"}
        assert all("empty" in each["last_error"] for each in program.windows())
        assert program.stored("acme", "daily") == stored
        confirmed = await program.run("run", "--once")
        assert (confirmed.code, len(confirmed.find_events("outcome_missing"))) == (0, len(windows))
    assert {row["outcome_count"] for row in program.stored("acme", "daily").values()} == {None}
    assert {row["last_error"] for row in program.windows()} == {None}
    restated = program.rows("SELECT * FROM flow_outcomes.restatement")
    assert len(restated) == len(stored)
    assert {row["new_count"] for row in restated} == {None}

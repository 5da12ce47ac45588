"""Rejected queries that can be requested differently: too fine, too large, an expired cursor."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from service.simulator import (
    Fault,
    Faults,
    GeneratedCentre,
    SimulatedOrg,
    Simulator,
    SimulatorConfig,
    StaticCentre,
    cardinality_exceeded,
)
from tests.acceptance.test_spans import RecordingCentre
from tests.support.program import Program, today

FIRST = date(2024, 1, 1)
CENTRE = GeneratedCentre(seed=5, flows=12)
FLOWS = [flow.id for flow in CENTRE.flows()]
OPEN = SimulatedOrg(requests_per_second=None, centre=CENTRE)

ORGS = {
    "halved": replace(OPEN, cardinality=35),
    "by_flows": replace(OPEN, cardinality=35),
    "too_large": replace(OPEN, cardinality=11),
    "expires": replace(OPEN, faults=Faults(cursor_expired=Fault(page=2, times=2))),
    "expires_400": replace(OPEN, cursor_expired_status=400, faults=Faults(cursor_expired=Fault(page=3, times=1))),
    "expires_thrice": replace(OPEN, faults=Faults(cursor_expired=Fault(page=2, times=3))),
    "coarser": replace(OPEN, faults=Faults(granularity_refused=Fault("hourly"))),
    "coarser_once": replace(OPEN, faults=Faults(granularity_refused=Fault())),
    "coarser_month": replace(OPEN, faults=Faults(granularity_refused=Fault("daily"))),
}
DAYS = dict.fromkeys(ORGS, 10) | {"coarser": 2, "coarser_once": 2}


async def test_a_rejected_query_is_split_restarted_or_coarsened(program: Program) -> None:
    """Split, restarted twice at most, coarser once: the figures are complete, or a reason is given."""
    async with Simulator(SimulatorConfig(orgs=ORGS)) as simulator:
        program.configure(
            simulator,
            orgs={
                name: {"page_size": 20, "flows": FLOWS if name == "by_flows" else [], "concurrency": 1}
                for name in ORGS
            },
            ad_hoc={
                name.replace("_", "-"): {
                    "org": name,
                    "from": FIRST,
                    "to": FIRST + timedelta(days=days),
                    "granularity": "hourly" if days == 2 else "daily",
                }
                for name, days in DAYS.items()
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (1, "")
        for name, org in ORGS.items():
            for fault in ("cursor_expired", "granularity_refused"):
                assert bool(getattr(org.faults, fault)) == bool(simulator.orgs[name].fired[fault]), name
        failed = {each["org"]: each["last_error"] for each in program.windows() if each["state"] == "failed"}
        assert set(failed) == {"too_large", "expires_thrice", "coarser_once"}
        assert "cardinality" in failed["too_large"].lower()
        assert "cursor" in failed["expires_thrice"].lower()
        assert "granularity" in failed["coarser_once"].lower()
        assert len(ended.find_events("window_restarted", org="expires")) == 2
        assert len(ended.find_events("window_restarted", org="expires_400")) == 1
        assert len(ended.find_events("window_restarted", org="expires_thrice")) == 2
        adjusted = {line["org"]: line["granularity"] for line in ended.find_events("granularity_adjusted")}
        assert adjusted == {"coarser": "daily", "coarser_once": "daily", "coarser_month": "monthly"}
        rejected = _rejected(simulator, "halved"), _rejected(simulator, "by_flows")
        assert rejected == (3, 2)
        requests = len(simulator.arrivals)
        for name in ("halved", "by_flows"):
            again = await program.run(
                "backfill", "--org", name, "--from", "2024-01-01", "--to", "2024-01-11", "--granularity", "daily"
            )
            assert again.code == 0
        assert len(simulator.arrivals) > requests
        assert (_rejected(simulator, "halved"), _rejected(simulator, "by_flows")) == rejected, (
            "the split was not remembered"
        )
        for name in set(ORGS) - set(failed):
            (window,) = program.windows(name)
            step = window["granularity"]
            truth = simulator.truth(window["window_start"], window["window_end"], step, org=name)
            stored = {
                key: row["outcome_count"]
                for key, row in program.stored(name, step).items()
                if row["outcome_count"] is not None
            }
            assert stored == {key: count for key, (count, _) in truth.items()}, name
            assert window["state"] == "complete"
        for name in failed:
            assert program.rows("SELECT 1 FROM flow_outcomes.flow_outcome WHERE org = %s", name) == []
        ended = await program.run("run", "--once")
        assert (ended.code, ended.find_events("granularity_adjusted")) == (1, [])
        (window,) = program.windows("coarser_once")
        assert (window["attempts"], window["granularity"], window["state"]) == (3, "daily", "failed")
    (month,) = program.windows("coarser_month")
    assert (month["requested_granularity"], month["granularity"]) == ("daily", "monthly")
    assert (month["window_end"] - month["window_start"]).days == 31


def _rejected(simulator: Simulator, org: str) -> int:
    return sum(each.org == org and each.status == 400 for each in simulator.arrivals)


class BusyCentre(StaticCentre):
    """A centre of which one day is too large for a response."""

    rejected = 0

    def snapshot(self) -> BusyCentre:
        """The centre itself, which does not change."""
        return self

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[tuple[str, str, int]]:
        """What was reported; an error where the span includes the day."""
        if start <= round(BUSY.timestamp() * 1000) < end:
            self.rejected += 1
            raise cardinality_exceeded(100_000, 1)
        return super().count_outcomes(flow_id, start, end, at)


BUSY = today() - timedelta(days=3)


async def test_a_job_with_too_many_days_or_one_day_too_large(program: Program) -> None:
    """The size that passes applies to other groups of windows; a day that is too large by itself fails alone."""
    figures = {(f"f{flow}", today() - timedelta(days=back)): {"A": 1} for back in range(1, 9) for flow in range(3)}
    busy = BusyCentre(figures)
    orgs = {
        "many": replace(OPEN, centre=StaticCentre(figures), cardinality=3),
        "busy": replace(OPEN, centre=busy),
    }
    job = {"since": "P6D", "lookback": "P6D", "off_peak": None}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator, jobs={"daily": job})
        for again in (False, True):
            simulator.arrivals.clear()
            ended = await program.run("run", "--once")
            assert (ended.code, ended.err) == (1, "")
            assert bool(_rejected(simulator, "many")) is not again
            assert {each["state"] for each in program.windows("many")} == {"complete"}
            failed = [each for each in program.windows("busy") if each["state"] != "complete"]
            assert [each["window_start"] for each in failed] == [BUSY]
            assert "cardinality" in failed[0]["last_error"].lower()
            assert len(ended.find_events("window_failed")) == 1
            assert busy.rejected
        assert _rejected(simulator, "busy") == 1, "requested alone"


@pytest.mark.counts_days
async def test_a_job_keeps_its_windows(program: Program) -> None:
    """Rejected groups of windows are requested one by one; a window rejected alone fails with the reason."""
    now = today()

    def centre() -> RecordingCentre:
        filled = RecordingCentre()
        for back in range(1, 9):
            for flow in range(4):
                hours = {now - timedelta(days=back, hours=-hour): hour for hour in range(0, 24, 5)}
                for hour, number in hours.items():
                    filled.put(f"flow-{flow}", hour, {"A": 3 + number, "B": 2 * back, f"only {back}": 1})
        return filled

    centres = {name: centre() for name in ("joined", "alone", "never_daily", "auto", "always", "never")}
    orgs = {
        name: SimulatedOrg(centre=centre_of_org, requests_per_second=None)
        for name, centre_of_org in centres.items()
    }
    orgs["alone"] = replace(orgs["alone"], granularity_limits=(7, 1, 7))
    orgs["never_daily"] = replace(orgs["never_daily"], faults=Faults(granularity_refused=Fault("daily")))
    modes = {"auto": "auto", "always": "always", "never": "never"}
    plain = {"since": "P8D", "off_peak": None, "lookback": "P0D"}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            jobs={
                "plain": plain | {"orgs": ["joined", "alone", "never_daily"]},
                **{
                    f"with_{mode}": plain | {"orgs": [mode], "metrics_delay": mode, "delay": "PT1H"}
                    for mode in modes
                },
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (1, "")
        rows = {}
        for name in orgs:
            windows = program.windows(name)
            assert len(windows) in (8, 9), name  # nine, where the newest window has not settled at the first run
            states = {each["state"] for each in windows}
            if name == "never_daily":
                assert states == {"failed"}
                assert all("granularity" in each["last_error"].lower() for each in windows)
                assert {each["granularity"] for each in windows} == {"daily"}
                assert program.stored(name, "daily") == {}
                continue
            assert states == {"complete"}, name
            start, end = windows[0]["window_start"], windows[-1]["window_end"]
            truth = simulator.truth(start, end, "daily", org=name)
            rows[name] = {
                key: row["outcome_count"]
                for key, row in program.stored(name, "daily").items()
                if row["outcome_count"] is not None
            }
            assert rows[name] == {key: count for key, (count, _) in truth.items()}, name
            assert len(rows[name]) == 4 * 3 * 8
        assert simulator.orgs["alone"].fired["granularity_refused"] == 0
        queries = {
            name: sum(each.org == name and each.kind == "query" for each in simulator.arrivals) for name in orgs
        }
        assert queries["joined"] == 2  # one to learn the size of a response, one for all other windows
        assert queries["alone"] >= 9
        hashes = {each["query_hash"] for each in program.windows("joined")}
        assert len(hashes) == 2
        assert rows["auto"] == rows["always"] == rows["never"]
        assert max(end for _, end in centres["always"].spans) > max(end for _, end in centres["auto"].spans)


async def test_scans_that_outlast_their_cursors(program: Program) -> None:
    """They fail after two restarts; the next run requests their windows one by one."""
    centre = GeneratedCentre(seed=5, flows=3)
    org = SimulatedOrg(requests_per_second=None, centre=centre, faults=Faults(cursor_expired=Fault(page=3)))
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        since = today() - timedelta(days=8)
        program.configure(
            simulator,
            orgs={"acme": {"page_size": 2}},
            jobs={"daily": {"since": since.date(), "off_peak": None}},
        )
        first = await program.run("run", "--once")
        assert simulator.orgs["acme"].fired["cursor_expired"] >= 3
        second = await program.run("run", "--once")
    assert (first.code, second.code) == (1, 0), second.failures()
    assert {each["state"] for each in program.windows()} == {"complete"}
    assert len(program.windows()) == 8

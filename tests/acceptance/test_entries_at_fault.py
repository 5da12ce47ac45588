"""One entry at fault is kept as it came; the rest of its window is stored, and nothing is made up."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Key, Program, expected, figures

FIRST, DAYS = date(2024, 1, 8), 3
START = datetime(2024, 1, 8, tzinfo=UTC)
BUCKETS = [(START + timedelta(days=day), START + timedelta(days=day + 1)) for day in range(DAYS)]

ONE_FIGURE, ONE_NAME, WHOLE_ENTRY = "one figure", "one name", "whole entry"
FAULTS: dict[str, tuple[str, object, str]] = {
    "count_text": ("bad_count", "12", ONE_FIGURE),
    "count_below": ("bad_count", -1, ONE_FIGURE),
    "count_part": ("bad_count", 1.5, ONE_FIGURE),
    "count_bool": ("bad_count", True, ONE_FIGURE),
    "count_null": ("bad_count", "null", ONE_FIGURE),
    "count_over": ("bad_count", 2**63, ONE_FIGURE),
    "count_object": ("bad_count", {"n": 1}, ONE_FIGURE),
    "count_long": ("long_number", None, ONE_FIGURE),
    "share_text": ("bad_percent", "x", ONE_FIGURE),
    "share_list": ("bad_percent", [0.5], ONE_FIGURE),
    "name_nul": ("nul_name", None, ONE_NAME),
    "name_surrogate": ("surrogate_name", None, ONE_NAME),
    "name_long": ("long_name", None, ONE_NAME),
    "name_empty": ("empty_name", None, ONE_NAME),
    "flow_none": ("missing_flow", None, WHOLE_ENTRY),
    "entry_number": ("bad_entry", 17, WHOLE_ENTRY),
    "entry_null": ("bad_entry", "null", WHOLE_ENTRY),
    "entry_list": ("bad_entry", [1, "ü"], WHOLE_ENTRY),
    "interval_word": ("bad_interval", None, WHOLE_ENTRY),
    "interval_number": ("bad_interval", 20240101, WHOLE_ENTRY),
    "outside": ("bucket_outside", None, WHOLE_ENTRY),
}
FINE = {
    "count_most": ("bad_count", 2**63 - 1),
    "count_point": ("bad_count", 145.0),
    "count_zero": ("bad_count", 0),
}
SHARES = {"share_over": 1.5, "share_below": -0.1, "share_null": "null"}
LONGEST = "é" * 256


async def test_an_entry_at_fault_costs_itself_alone(program: Program) -> None:
    """Each kind of bad entry is kept verbatim, its figure is null where it can be told, all others are right."""
    switches = {
        **{name: (fault, value) for name, (fault, value, _) in FAULTS.items()},
        **FINE,
        **{name: ("bad_percent", value) for name, value in SHARES.items()},
        "name_longest": ("long_name", 512),
    }
    open_org = SimulatedOrg(requests_per_second=None, flows=6, seed=3)
    orgs = {
        name: replace(open_org, faults=Faults(**{fault: Fault(value, page=1, times=1)}))
        for name, (fault, value) in switches.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={name: {"page_size": 5} for name in orgs},
            ad_hoc={
                name: {"org": name, "from": FIRST, "to": FIRST + timedelta(days=DAYS), "granularity": "daily"}
                for name in orgs
            },
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended.failures()
        truth = dict(simulator.truth(START, BUCKETS[-1][1], "daily", org="count_text"))
        for name, (fault, _) in switches.items():
            assert simulator.orgs[name].fired[fault] == 1, name
    flow = next(iter(truth))[0]
    struck = [key for key in truth if key[0] == flow and key[1] == START]
    first = struck[0]
    whole = expected(truth, BUCKETS)
    for name, (_, _, kind) in FAULTS.items():
        wanted = dict(whole)
        if kind == ONE_FIGURE:
            for key in struck:
                wanted[key] = (*wanted[key][:2], None)
            wanted[first] = (None, None, None)
        else:
            # which outcome, bucket or flow is missing cannot be told, so silence tells nothing in this window
            wanted = {key: figure for key, figure in wanted.items() if figure[0] is not None}
            for key in struck:
                if kind == WHOLE_ENTRY or key == first:
                    del wanted[key]
                else:
                    wanted[key] = (*wanted[key][:2], None)
        assert figures(program.stored(name, "daily")) == wanted, name
        (window,) = program.windows(name)
        kept = program.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name)
        count = len(struck) if kind == WHOLE_ENTRY and not name.startswith("entry") else 1
        assert (len(kept), window["rejected"], window["state"]) == (count, count, "complete"), name
        assert len(ended.find_events("entry_rejected", org=name)) == count, name
        assert {(row["window_start"], row["window_end"]) for row in kept} == {(START, BUCKETS[-1][1])}, name
        assert len({row["entry"] for row in kept}) == 1
        entry = kept[0]["entry"]
        if name != "count_long":  # longer than Python reads by default
            assert json.dumps(json.loads(entry)) == entry, "to the letter, as the simulator writes it"
        if isinstance(FAULTS[name][1], list) and name == "entry_list":
            assert entry == '[1, "\\u00fc"]'
    _fine(program, whole, struck)


def _fine(
    program: Program, whole: dict[Key, tuple[int | None, float | None, float | None]], struck: list[Key]
) -> None:
    """What looks odd, and is not at fault."""
    first, *rest = struck
    for name, (_, count) in FINE.items():
        stored = program.stored(name, "daily")
        assert stored[first]["outcome_count"] == int(count), name
        total = int(count) + sum(whole[key][0] or 0 for key in rest)
        assert all(stored[key]["outcome_share"] == stored[key]["outcome_count"] / total for key in struck), name
    for name in SHARES:
        assert figures(program.stored(name, "daily")) == whole | {
            first: (whole[first][0], None, whole[first][2])
        }, name
    assert (first[0], first[1], LONGEST) in program.stored("name_longest", "daily")
    for name in (*FINE, *SHARES, "name_longest"):
        assert program.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name) == [], name


async def test_a_share_that_fits_no_total_is_told(program: Program) -> None:
    """With its window, and stored as reported; shares that fit are not told of."""
    org = SimulatedOrg(requests_per_second=None, flows=6, seed=3)
    wrong = replace(org, faults=Faults(bad_percent=Fault(0.987, page=1, times=1)))
    async with Simulator(SimulatorConfig(orgs={"right": org, "wrong": wrong})) as simulator:
        day = {"from": FIRST, "to": FIRST + timedelta(days=1), "granularity": "daily"}
        program.configure(simulator, ad_hoc={name: {"org": name, **day} for name in ("right", "wrong")})
        ended = await program.run("run", "--once")
        assert simulator.orgs["wrong"].fired["bad_percent"] == 1
    (told,) = ended.find_events("percentage_mismatch")
    assert (told["org"], told["rows"]) == ("wrong", 1)
    assert 0.987 in {row["outcome_percentage"] for row in program.stored("wrong", "daily").values()}

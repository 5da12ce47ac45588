"""An invalid entry is kept verbatim, and the rest of its window is stored."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import Key, Program, expected, figures

FIRST, DAYS = date(2024, 1, 8), 3
START = datetime(2024, 1, 8, tzinfo=UTC)
BUCKETS = [(START + timedelta(days=day), START + timedelta(days=day + 1)) for day in range(DAYS)]

ONE_FIGURE, ONE_NAME, COMPLETE_ENTRY = "one figure", "one name", "entry"
INVALID: dict[str, tuple[str, object, str]] = {
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
    "flow_none": ("missing_flow", None, COMPLETE_ENTRY),
    "entry_number": ("bad_entry", 17, COMPLETE_ENTRY),
    "entry_null": ("bad_entry", "null", COMPLETE_ENTRY),
    "entry_list": ("bad_entry", [1, "ü"], COMPLETE_ENTRY),
    "interval_word": ("bad_interval", None, COMPLETE_ENTRY),
    "interval_number": ("bad_interval", 20240101, COMPLETE_ENTRY),
    "outside": ("bucket_outside", None, COMPLETE_ENTRY),
}
VALID = {
    "count_most": ("bad_count", 2**63 - 1),
    "count_point": ("bad_count", 145.0),
    "count_zero": ("bad_count", 0),
}
SHARES = {"share_over": 1.5, "share_below": -0.1, "share_null": "null"}
LONGEST = "é" * 256


async def test_an_invalid_entry_is_rejected_alone(program: Program) -> None:
    """Each kind of invalid entry is kept verbatim, its figure is null if its key is known, others are exact."""
    switches = {
        **{name: (fault, value) for name, (fault, value, _) in INVALID.items()},
        **VALID,
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
    affected = [key for key in truth if key[0] == flow and key[1] == START]
    first = affected[0]
    complete = expected(truth, BUCKETS)
    for name, (_, _, kind) in INVALID.items():
        result = dict(complete)
        if kind == ONE_FIGURE:
            for key in affected:
                result[key] = (*result[key][:2], None)
            result[first] = (None, None, None)
        else:
            # the rejected outcome, bucket or flow is unknown, so absence is not conclusive in this window
            result = {key: figure for key, figure in result.items() if figure[0] is not None}
            for key in affected:
                if kind == COMPLETE_ENTRY or key == first:
                    del result[key]
                else:
                    result[key] = (*result[key][:2], None)
        assert figures(program.stored(name, "daily")) == result, name
        (window,) = program.windows(name)
        kept = program.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name)
        count = len(affected) if kind == COMPLETE_ENTRY and not name.startswith("entry") else 1
        assert (len(kept), window["rejected"], window["state"]) == (count, count, "complete"), name
        assert len(ended.find_events("entry_rejected", org=name)) == count, name
        assert {(row["window_start"], row["window_end"]) for row in kept} == {(START, BUCKETS[-1][1])}, name
        assert len({row["entry"] for row in kept}) == 1
        entry = kept[0]["entry"]
        if name != "count_long":  # longer than Python reads by default
            assert json.dumps(json.loads(entry)) == entry, "verbatim"
        if isinstance(INVALID[name][1], list) and name == "entry_list":
            assert entry == '[1, "\\u00fc"]'
    _assert_valid(program, complete, affected)


def _assert_valid(
    program: Program, complete: dict[Key, tuple[int | None, float | None, float | None]], affected: list[Key]
) -> None:
    """Assert that unusual but valid entries are stored."""
    first, *rest = affected
    for name, (_, count) in VALID.items():
        stored = program.stored(name, "daily")
        assert stored[first]["outcome_count"] == int(count), name
        total = int(count) + sum(complete[key][0] or 0 for key in rest)
        assert all(stored[key]["outcome_share"] == stored[key]["outcome_count"] / total for key in affected), name
    for name in SHARES:
        assert figures(program.stored(name, "daily")) == complete | {
            first: (complete[first][0], None, complete[first][2])
        }, name
    assert (first[0], first[1], LONGEST) in program.stored("name_longest", "daily")
    for name in (*VALID, *SHARES, "name_longest"):
        assert program.rows("SELECT * FROM flow_outcomes.rejected_entry WHERE org = %s", name) == [], name


async def test_a_mismatched_share_is_logged(program: Program) -> None:
    """A share that fits no total is logged and stored as reported; shares that fit are not logged."""
    org = SimulatedOrg(requests_per_second=None, flows=6, seed=3)
    wrong = replace(org, faults=Faults(bad_percent=Fault(0.987, page=1, times=1)))
    async with Simulator(SimulatorConfig(orgs={"right": org, "wrong": wrong})) as simulator:
        day = {"from": FIRST, "to": FIRST + timedelta(days=1), "granularity": "daily"}
        program.configure(simulator, ad_hoc={name: {"org": name, **day} for name in ("right", "wrong")})
        ended = await program.run("run", "--once")
        assert simulator.orgs["wrong"].fired["bad_percent"] == 1
    (mismatch,) = ended.find_events("percentage_mismatch")
    assert (mismatch["org"], mismatch["rows"]) == ("wrong", 1)
    assert 0.987 in {row["outcome_percentage"] for row in program.stored("wrong", "daily").values()}

"""The metrics of the flow-aggregates API, from a contact centre's records."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.simulator.aggregates_query import DIMENSIONS
from service.simulator.centre import CORRECTION_DELAY, Centre, GeneratedCentre
from service.simulator.corrected_centre import CorrectedCentre
from service.simulator.flow_measures import (
    EXECUTION_METRICS,
    METRICS,
    MILESTONE_METRICS,
    OUTCOME_METRICS,
    Cell,
    Stats,
    Tally,
)
from service.simulator.instants import DAY, HOUR, MINUTE, parse_instant, to_datetime
from service.simulator.record_traits import SLOTS, flow_traits, pattern, slot_offset, variant
from service.simulator.restricted_centre import NightlyCentre, RestrictedCentre
from service.simulator.static_centre import StaticCentre

START = parse_instant("2024-03-01T00:00Z")
LONG_AFTER = START + 4000 * DAY
SHARED = [
    "direction",
    "divisionId",
    "dnis",
    "endingLanguage",
    "entryReason",
    "entryType",
    "flowId",
    "flowName",
    "flowType",
    "flowVersion",
    "mediaType",
    "messageType",
    "startingLanguage",
]
OWN = {
    "flowOutcomeId": OUTCOME_METRICS,
    "flowOutcomeValue": OUTCOME_METRICS,
    "exitReason": EXECUTION_METRICS,
    "flowMilestoneId": MILESTONE_METRICS,
}
CENTRE = GeneratedCentre(11, flows=6)


def measure(
    centre: Centre,
    start: int,
    end: int,
    dimensions: tuple[str, ...] = ("flowId",),
    at: int = LONG_AFTER,
    metrics: frozenset[str] = METRICS,
) -> dict[Cell, Stats]:
    """Return the cells of all flows of [start, end) as one bucket."""
    tally = Tally(dimensions, metrics, lambda _: "home")
    cells: dict[Cell, Stats] = {}
    for flow in centre.flows():
        for cell, stats in tally.bucket(centre, flow, (start, end), at).items():
            cells[cell] = add(cells[cell], stats) if cell in cells else stats
    return cells


def add(one: Stats, other: Stats) -> Stats:
    """Add up two stats by the plain definition."""
    if one[1] is None or other[1] is None:
        return one[0] + other[0], None, 0, 0
    return one[0] + other[0], one[1] + other[1], min(one[2], other[2]), max(one[3], other[3])


def corrected() -> CorrectedCentre:
    centre = CorrectedCentre(CENTRE)
    centre.correct(CENTRE.flows()[0].id, to_datetime(START + 12 * HOUR), "Abandoned", 25)
    return centre


def static() -> StaticCentre:
    hours = {
        ("f1", to_datetime(START) + timedelta(hours=hour)): {"Abandoned": hour * 7, "A": 3, "B": 0}
        for hour in range(48)
    }
    return StaticCentre(hours)


@settings(max_examples=30, deadline=None)
@given(
    centre=st.sampled_from(
        [CENTRE, corrected(), static(), NightlyCentre(CENTRE), RestrictedCentre(CENTRE, 20 * DAY, frozenset())]
    ),
    low=st.integers(-40 * DAY, 40 * DAY),
    length=st.integers(1, 40 * DAY),
    seen_after=st.integers(-DAY, 60 * DAY),
)
def test_the_records_are_those_that_are_counted(centre: Centre, low: int, length: int, seen_after: int) -> None:
    """By both APIs alike, for any interval, at any time, with corrections."""
    start, end, at = START + low, START + low + length, START + seen_after
    for flow in centre.flows():
        counts: dict[str, int] = {}
        for outcome, _, count in centre.count_outcomes(flow.id, start, end, at):
            counts[outcome] = counts.get(outcome, 0) + count
        records: dict[str, int] = {}
        for run in centre.record_runs(flow.id, start, end, at):
            assert run.first < run.after
            records[run.outcome_id] = records.get(run.outcome_id, 0) + run.after - run.first
        assert records == {outcome: count for outcome, count in counts.items() if count}


@settings(max_examples=20, deadline=None)
@given(
    centre=st.sampled_from([CENTRE, NightlyCentre(CENTRE)]),
    offset=st.integers(0, 400 * DAY),
    cuts=st.lists(st.integers(1, 70 * DAY), min_size=1, max_size=8, unique=True),
    seen_after=st.integers(0, 80 * DAY),
    dimensions=st.sampled_from(
        [("flowId",), ("mediaType", "flowVersion"), ("flowOutcomeId", "messageType"), ("exitReason", "flowId")]
    ),
)
@example(CENTRE, 0, [40 * DAY, 70 * DAY], 80 * DAY, ("mediaType", "flowVersion"))
@example(
    NightlyCentre(CENTRE), 0, [12 * HOUR - 1, 12 * HOUR + 1, 2 * DAY], 80 * DAY, ("flowOutcomeId", "messageType")
)
def test_parts_of_an_interval_add_up(
    centre: Centre, offset: int, cuts: list[int], seen_after: int, dimensions: tuple[str, ...]
) -> None:
    """However an interval is split, by any dimension: counts and sums, and the extremes of the parts."""
    start = START + offset
    edges = [start, *(start + cut for cut in sorted(cuts))]
    parts: dict[Cell, Stats] = {}
    for low, high in pairwise(edges):
        for cell, stats in measure(centre, low, high, dimensions, start + seen_after).items():
            parts[cell] = add(parts[cell], stats) if cell in parts else stats
    assert parts == measure(centre, start, edges[-1], dimensions, start + seen_after)


@pytest.mark.parametrize("dimension", SHARED)
def test_groups_add_up_to_the_total(dimension: str) -> None:
    """By every dimension that each kind of metric has, alone and beside the metric's own ones."""
    start, end = START, START + 60 * DAY
    total = {metric: stats for (_, metric), stats in measure(CENTRE, start, end, ()).items()}
    assert total.keys() == METRICS
    for further in ((), *((name,) for name in OWN)):
        sums: dict[str, Stats] = {}
        for (_, metric), stats in measure(CENTRE, start, end, (dimension, *further)).items():
            sums[metric] = add(sums[metric], stats) if metric in sums else stats
        present = METRICS if not further else OWN[further[0]]
        assert sums == {metric: total[metric] for metric in present}


def test_the_plain_definition() -> None:
    """The traits of the records, one by one, give the metrics."""
    flow = CENTRE.flows()[2]
    start, end = START, START + 3 * DAY
    expected = {"nFlowOutcome": 0, "tFlowOutcome": 0, "nFlow": 0, "tFlow": 0, "nFlowMilestone": 0}
    spent = {"tFlowOutcome": 0, "tFlow": 0}
    for low, high, version in flow_traits(flow.id).versions(start, end):
        for run in CENTRE.record_runs(flow.id, low, high, LONG_AFTER):
            slots = pattern(flow.id, run.outcome_id, run.kind, version, variant(run.origin))
            for number in range(run.first, run.after):
                slot = slots[(slot_offset(run.outcome_id, run.origin) + number) % SLOTS]
                expected["nFlowOutcome"] += 1
                expected["tFlowOutcome"] += slot.milliseconds is not None
                spent["tFlowOutcome"] += slot.milliseconds or 0
                expected["nFlow"] += len(slot.executions)
                expected["tFlow"] += len(slot.executions)
                spent["tFlow"] += sum(each.milliseconds for each in slot.executions)
                expected["nFlowMilestone"] += sum(times for _, times in slot.milestones)
    tally = Tally((), METRICS, lambda _: "home").bucket(CENTRE, flow, (start, end), LONG_AFTER)
    assert {metric: tally[(), metric][0] for metric in expected} == expected
    assert {metric: tally[(), metric][1] for metric in spent} == spent
    assert expected["nFlowOutcome"] > 10 * SLOTS


def test_a_metric_without_meaning_gives_absent_data() -> None:
    """An execution has no outcome id; a dimension of something else gives nothing at all."""
    for name in DIMENSIONS:
        present = {metric for _, metric in measure(CENTRE, START, START + 20 * DAY, (name,))}
        assert present == (METRICS if name in SHARED else OWN.get(name, frozenset())), name
    assert measure(CENTRE, START, START + 20 * DAY, ("exitReason", "flowOutcomeId")) == {}


def test_durations() -> None:
    """Count, sum, smallest and largest fit; not each success has a duration, and no unknown result."""
    cells = measure(CENTRE, START, START + 30 * DAY, ("flowOutcomeId", "flowOutcomeValue"))
    durations = {key: stats for (key, metric), stats in cells.items() if metric == "tFlowOutcome"}
    for count, spent, low, high in durations.values():
        assert spent is not None
        assert count * low <= spent <= count * high
        assert low > 1000
    assert {value for _, value in durations} == {"SUCCESS", "FAILURE"}
    assert all(stats[0] <= cells[key, "nFlowOutcome"][0] for key, stats in durations.items())
    assert any(stats[0] < cells[key, "nFlowOutcome"][0] for key, stats in durations.items())
    assert any(value == "UNKNOWN" for (_, value), _ in cells)


def test_executions() -> None:
    """Each execution ends one way; some outcomes share one, and some executions have none."""
    start, end = START, START + 30 * DAY
    cells = measure(CENTRE, start, end, ("exitReason",))
    ended = {metric: {key[0] for key, each in cells if each == metric} for metric in EXECUTION_METRICS}
    assert ended["tFlowExit"] == {"TRANSFER"}
    assert len(ended["tFlowDisconnect"]) == 3
    assert ended["nFlow"] == ended["tFlow"] == ended["tFlowExit"] | ended["tFlowDisconnect"]
    total = {metric: stats for (_, metric), stats in measure(CENTRE, start, end, ()).items()}
    assert total["nFlow"][0] == total["tFlow"][0] == total["tFlowExit"][0] + total["tFlowDisconnect"][0]
    assert 0 < total["nFlow"][0] < total["nFlowOutcome"][0] * 2
    assert total["nFlow"][0] != total["nFlowOutcome"][0]


def test_milestones() -> None:
    """The later ones of a flow are reached less often, some twice in one execution; some flows have none."""
    start, end = START, START + 60 * DAY
    cells = measure(GeneratedCentre(7, flows=20), start, end, ("flowId", "flowMilestoneId"))
    for flow in GeneratedCentre(7, flows=20).flows():
        reached = [
            cells[(flow.id, each), "oFlowMilestone"][0]
            for each in flow_traits(flow.id).milestones
            if ((flow.id, each), "oFlowMilestone") in cells
        ]
        assert reached == sorted(reached, reverse=True)
    counts = [stats[0] - cells[key, "oFlowMilestone"][0] for (key, name), stats in cells.items() if name[0] == "n"]
    assert 0 < min(counts) < max(counts)
    assert 0 < len({key[0] for key, _ in cells}) < 20


def test_a_publication_begins_a_version() -> None:
    """In the middle of a bucket too: both versions are in it, and the pattern of the records changes."""
    flow = CENTRE.flows()[1]
    traits = flow_traits(flow.id)
    before, after = traits.versions(START, START + 80 * DAY)[:2]
    published = before[1]
    assert (published == after[0], after[2]) == (True, before[2] + 1)
    assert published % HOUR % MINUTE == 0 != published % DAY
    day = published // DAY * DAY
    cells = Tally(("flowVersion",), {"nFlowOutcome"}, lambda _: "home").bucket(
        CENTRE, flow, (day, day + DAY), LONG_AFTER
    )
    assert {key for key, _ in cells} == {(f"{before[2]}.0",), (f"{after[2]}.0",)}
    outcome = CENTRE.record_runs(flow.id, day, day + DAY, LONG_AFTER)[0].outcome_id
    assert pattern(flow.id, outcome, "other", 3, 0) != pattern(flow.id, outcome, "other", 4, 0)
    assert traits.version(0) == 1
    assert traits.version(traits.phase - 1) == 1
    assert traits.version(traits.phase) == 2


def test_several_media_in_a_flow() -> None:
    """A call has a dialled number and no message type, a message the reverse."""
    media = {contact["mediaType"] for flow in CENTRE.flows() for contact in flow_traits(flow.id).contacts}
    assert len(media) > 2
    assert all(
        len({contact["mediaType"] for contact in flow_traits(flow.id).contacts}) > 1 for flow in CENTRE.flows()
    )
    key = ("mediaType", "messageType", "dnis")
    groups = {group for group, _ in measure(GeneratedCentre(7, flows=20), START, START + 30 * DAY, key)}
    assert {(kind is None, number is None) for medium, kind, number in groups if medium == "voice"} == {
        (True, False)
    }
    assert {(kind is None, number is None) for medium, kind, number in groups if medium == "message"} == {
        (False, True)
    }


def test_corrections_apply_to_every_metric() -> None:
    """Those that become visible late, and those of a corrected centre."""
    end = START + 60 * DAY
    settled = measure(CENTRE, START, end, (), end + 2 * HOUR)
    final = measure(CENTRE, START, end, (), end + CORRECTION_DELAY)
    changed = measure(corrected(), START, end, (), end + CORRECTION_DELAY)
    for metric in METRICS:
        assert settled[(), metric][0] < final[(), metric][0] < changed[(), metric][0], metric


def test_a_seed_determines_the_measures() -> None:
    """The same seed gives the same measures, another seed others."""
    one, same, other = (measure(GeneratedCentre(seed, flows=2), START, START + DAY, ()) for seed in (7, 7, 8))
    assert one == same != other

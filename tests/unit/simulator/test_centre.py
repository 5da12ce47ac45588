"""The generated contact centre."""

from __future__ import annotations

import uuid
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.simulator.centre import CORRECTION_DELAY, GeneratedCentre
from service.simulator.instants import DAY, HOUR, MINUTE, parse_instant

START = parse_instant("2024-03-01T00:00Z")
LONG_AFTER = START + 4000 * DAY


def counts(centre: GeneratedCentre, flow: str, start: int, end: int, at: int = LONG_AFTER) -> dict[str, int]:
    return {name: count for _, name, count in centre.count_outcomes(flow, start, end, at) if count}


def total(centre: GeneratedCentre, start: int, end: int, at: int = LONG_AFTER) -> int:
    return sum(count for flow in centre.flows() for count in counts(centre, flow.id, start, end, at).values())


def test_a_seed_determines_the_centre() -> None:
    """The same seed gives the same flows and figures; another seed gives others."""
    one, same, other = GeneratedCentre(7), GeneratedCentre(7), GeneratedCentre(8)
    flow = one.flows()[0].id
    assert one.flows() == same.flows()
    assert one.flows() != other.flows()
    assert one.count_outcomes(flow, START, START + DAY, LONG_AFTER) == same.count_outcomes(
        flow, START, START + DAY, LONG_AFTER
    )


@settings(max_examples=40, deadline=None)
@given(
    offset=st.integers(0, 400 * DAY),
    cuts=st.lists(st.integers(1, 40 * DAY), min_size=1, max_size=12, unique=True),
    seen_after=st.integers(-DAY, 60 * DAY),
)
def test_parts_of_an_interval_add_up(offset: int, cuts: list[int], seen_after: int) -> None:
    """However an interval is split, and at any time, its parts add up to its counts, name by name."""
    centre = GeneratedCentre(11, flows=3)
    start = START + offset
    edges = [start, *(start + split_buckets for split_buckets in sorted(cuts))]
    at = start + seen_after
    for flow in centre.flows():
        parts: dict[str, int] = {}
        for low, high in pairwise(edges):
            for name, count in counts(centre, flow.id, low, high, at).items():
                parts[name] = parts.get(name, 0) + count
        assert parts == counts(centre, flow.id, start, edges[-1], at)


def test_ids_and_names() -> None:
    """Ids are UUIDs; some names are not ASCII; some outcomes are in several flows, none twice in one flow."""
    centre = GeneratedCentre(7, flows=20, outcomes=12)
    names_by_flow = {flow.id: list(counts(centre, flow.id, START, START + 40 * DAY)) for flow in centre.flows()}
    assert all(str(uuid.UUID(flow)) == flow for flow in names_by_flow)
    assert any(not name.isascii() for names in names_by_flow.values() for name in names)
    assert sum("Abandoned" in names for names in names_by_flow.values()) > 1
    assert all(len(set(names)) == len(names) for names in names_by_flow.values())
    assert len(names_by_flow) == len({flow.name for flow in centre.flows()}) == 20


def test_daily_and_weekly_pattern() -> None:
    """A Monday has higher counts than a Sunday, and noon higher ones than 3:00."""
    centre = GeneratedCentre(7, flows=40)
    monday, sunday = parse_instant("2024-03-04T00:00Z"), parse_instant("2024-03-03T00:00Z")
    assert total(centre, monday, monday + DAY) > 2 * total(centre, sunday, sunday + DAY)
    noon, night = monday + 12 * HOUR, monday + 3 * HOUR
    assert total(centre, noon, noon + HOUR) > 4 * total(centre, night, night + HOUR)


def test_records_become_visible_within_45_minutes() -> None:
    """Future records are not visible; past ones are after 45 minutes, except corrections."""
    centre = GeneratedCentre(7)
    noon = START + 12 * HOUR
    flow = centre.flows()[0].id
    assert not any(centre.count_outcomes(flow.id, noon, noon + HOUR, noon) for flow in centre.flows())
    seen = [total(centre, START, noon, noon + minutes * MINUTE) for minutes in (-720, -60, 0, 20, 45, 60, 240)]
    assert seen == sorted(seen)
    assert seen[0] == 0 < seen[2] < seen[4] == seen[5] == seen[6]
    assert counts(centre, flow, START, noon, noon + 45 * MINUTE) == counts(
        centre, flow, START, noon, noon + DAY // 2
    )


def test_corrections_become_visible_a_day_later() -> None:
    """A settled day's counts grow slightly a day later, and are then final."""
    centre = GeneratedCentre(7)
    end = START + DAY
    settled, corrected = (
        total(centre, START, end, end + 2 * HOUR),
        total(centre, START, end, end + CORRECTION_DELAY),
    )
    assert settled < corrected == total(centre, START, end)
    assert corrected - settled < corrected // 20
    assert not centre.is_final(end, end + CORRECTION_DELAY - 1)
    assert centre.is_final(end, end + CORRECTION_DELAY)


def test_campaigns_are_renamed_or_absent() -> None:
    """Within 150 days some outcome changes its dated name, and some outcome is absent on some days."""
    centre = GeneratedCentre(7, flows=12)
    absent = renamed = 0
    for flow in centre.flows():
        seen = [
            frozenset(name for name in counts(centre, flow.id, day, day + DAY) if name[-10:-6].isdigit())
            for day in range(START, START + 150 * DAY, DAY)
        ]
        renamed += len(frozenset.union(*seen)) > 1
        absent += any(frozenset.union(*seen)) and any(not names for names in seen[60:])
    assert renamed
    assert absent


def test_a_zero_is_reported_or_absent() -> None:
    """Of the hours without records of an outcome, some are reported as zero, and in some the outcome is absent."""
    centre = GeneratedCentre(7)
    reported = [
        {name: count for _, name, count in centre.count_outcomes(flow.id, hour, hour + HOUR, LONG_AFTER)}.get(
            "Abandoned"
        )
        for flow in centre.flows()
        for hour in range(START, START + 2 * DAY, HOUR)
    ]
    assert reported.count(0)
    assert reported.count(None)


def test_an_unknown_flow() -> None:
    """An unknown flow has no figures."""
    assert GeneratedCentre(7).count_outcomes("nobody", START, START + DAY, LONG_AFTER) == []


@pytest.mark.parametrize("outcomes", [0, 1, 3, 40, 70])
def test_any_number_of_outcomes(outcomes: int) -> None:
    """A flow may have no outcomes or many."""
    centre = GeneratedCentre(7, flows=2, outcomes=outcomes)
    assert len(counts(centre, centre.flows()[0].id, START, START + 200 * DAY)) >= outcomes - 1

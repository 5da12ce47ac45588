"""The generated contact centre."""

from __future__ import annotations

import uuid
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.simulator.centre import LATE, GeneratedCentre
from service.simulator.instants import DAY, HOUR, MINUTE, parse_instant

START = parse_instant("2024-03-01T00:00Z")
LONG_AFTER = START + 4000 * DAY


def counts(centre: GeneratedCentre, flow: str, start: int, end: int, at: int = LONG_AFTER) -> dict[str, int]:
    return {name: count for _, name, count in centre.tally(flow, start, end, at) if count}


def total(centre: GeneratedCentre, start: int, end: int, at: int = LONG_AFTER) -> int:
    return sum(count for flow in centre.flows() for count in counts(centre, flow.id, start, end, at).values())


def test_one_seed_is_one_centre() -> None:
    """The same seed gives the same flows and figures, another seed others."""
    one, same, other = GeneratedCentre(7), GeneratedCentre(7), GeneratedCentre(8)
    flow = one.flows()[0].id
    assert one.flows() == same.flows()
    assert one.flows() != other.flows()
    assert one.tally(flow, START, START + DAY, LONG_AFTER) == same.tally(flow, START, START + DAY, LONG_AFTER)


@settings(max_examples=40, deadline=None)
@given(
    offset=st.integers(0, 400 * DAY),
    cuts=st.lists(st.integers(1, 40 * DAY), min_size=1, max_size=12, unique=True),
    seen_after=st.integers(-DAY, 60 * DAY),
)
def test_any_cut_adds_up(offset: int, cuts: list[int], seen_after: int) -> None:
    """However a stretch is cut, and whenever it is looked at, its parts add up to the whole, name by name."""
    centre = GeneratedCentre(11, flows=3)
    start = START + offset
    edges = [start, *(start + cut for cut in sorted(cuts))]
    at = start + seen_after
    for flow in centre.flows():
        parts: dict[str, int] = {}
        for low, high in pairwise(edges):
            for name, count in counts(centre, flow.id, low, high, at).items():
                parts[name] = parts.get(name, 0) + count
        assert parts == counts(centre, flow.id, start, edges[-1], at)


def test_names_are_as_wild_as_real_ones() -> None:
    """Ids are UUIDs; names hold more than ASCII; some outcomes stand in several flows, none twice in one."""
    centre = GeneratedCentre(7, flows=20, outcomes=12)
    held = {flow.id: list(counts(centre, flow.id, START, START + 40 * DAY)) for flow in centre.flows()}
    assert all(str(uuid.UUID(flow)) == flow for flow in held)
    assert any(not name.isascii() for names in held.values() for name in names)
    assert sum("Abandoned" in names for names in held.values()) > 1
    assert all(len(set(names)) == len(names) for names in held.values())
    assert len(held) == len({flow.name for flow in centre.flows()}) == 20


def test_nights_and_sundays_are_quieter() -> None:
    """A Monday has more than a Sunday, and noon more than the small hours."""
    centre = GeneratedCentre(7, flows=40)
    monday, sunday = parse_instant("2024-03-04T00:00Z"), parse_instant("2024-03-03T00:00Z")
    assert total(centre, monday, monday + DAY) > 2 * total(centre, sunday, sunday + DAY)
    noon, night = monday + 12 * HOUR, monday + 3 * HOUR
    assert total(centre, noon, noon + HOUR) > 4 * total(centre, night, night + HOUR)


def test_what_has_not_happened_is_not_reported() -> None:
    """Nothing of the future is seen, and of the past all but corrections by 45 minutes after."""
    centre = GeneratedCentre(7)
    noon = START + 12 * HOUR
    flow = centre.flows()[0].id
    assert not any(centre.tally(flow.id, noon, noon + HOUR, noon) for flow in centre.flows())
    seen = [total(centre, START, noon, noon + minutes * MINUTE) for minutes in (-720, -60, 0, 20, 45, 60, 240)]
    assert seen == sorted(seen)
    assert seen[0] == 0 < seen[2] < seen[4] == seen[5] == seen[6]
    assert counts(centre, flow, START, noon, noon + 45 * MINUTE) == counts(
        centre, flow, START, noon, noon + DAY // 2
    )


def test_corrections_come_a_day_later() -> None:
    """A settled day grows a little once more, and is final then."""
    centre = GeneratedCentre(7)
    end = START + DAY
    settled, corrected = total(centre, START, end, end + 2 * HOUR), total(centre, START, end, end + LATE)
    assert settled < corrected == total(centre, START, end)
    assert corrected - settled < corrected // 20
    assert not centre.final(end, end + LATE - 1)
    assert centre.final(end, end + LATE)


def test_outcomes_are_renamed_and_vanish() -> None:
    """Over a season some outcome changes its dated name, and some day it is not reported under any."""
    centre = GeneratedCentre(7, flows=12)
    gone = renamed = 0
    for flow in centre.flows():
        seen = [
            frozenset(name for name in counts(centre, flow.id, day, day + DAY) if name[-10:-6].isdigit())
            for day in range(START, START + 150 * DAY, DAY)
        ]
        renamed += len(frozenset.union(*seen)) > 1
        gone += any(frozenset.union(*seen)) and any(not names for names in seen[60:])
    assert renamed
    assert gone


def test_zero_is_sometimes_said_and_sometimes_not() -> None:
    """Of the hours in which an outcome had nothing, some are reported as zero and some are silent."""
    centre = GeneratedCentre(7)
    heard = [
        {name: count for _, name, count in centre.tally(flow.id, hour, hour + HOUR, LONG_AFTER)}.get("Abandoned")
        for flow in centre.flows()
        for hour in range(START, START + 2 * DAY, HOUR)
    ]
    assert heard.count(0)
    assert heard.count(None)


def test_an_unknown_flow_is_silent() -> None:
    """A flow that is none has no figures."""
    assert GeneratedCentre(7).tally("nobody", START, START + DAY, LONG_AFTER) == []


@pytest.mark.parametrize("outcomes", [0, 1, 3, 40, 70])
def test_any_number_of_outcomes(outcomes: int) -> None:
    """A flow may have none or very many outcomes."""
    centre = GeneratedCentre(7, flows=2, outcomes=outcomes)
    assert len(counts(centre, centre.flows()[0].id, START, START + 200 * DAY)) >= outcomes - 1

"""The contact centre with given figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.simulator.instants import HOUR, MINUTE, to_milliseconds
from service.simulator.static_centre import StaticCentre

HOURS = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(4)]
NOON = to_milliseconds(datetime(2024, 1, 2, tzinfo=UTC))


def centre_of_two_hours() -> StaticCentre:
    return StaticCentre(
        {("f1", HOURS[0]): {"A": 5, "B": 0}, ("f1", HOURS[1]): {"A": 2}, ("f2", HOURS[0]): {"A": 1}}
    )


def count_outcomes(centre: StaticCentre, flow: str, start: int, end: int, at: int = NOON) -> dict[str, int]:
    return {name: count for _, name, count in centre.count_outcomes(flow, start, end, at)}


def span(first: int, after: int) -> tuple[int, int]:
    return to_milliseconds(HOURS[first]), to_milliseconds(HOURS[after])


def test_hours_add_up() -> None:
    """Counts add up over hours; a given zero is reported, an outcome that was not given is absent."""
    centre = centre_of_two_hours()
    assert count_outcomes(centre, "f1", *span(0, 2)) == {"A": 7, "B": 0}
    assert count_outcomes(centre, "f1", *span(1, 2)) == {"A": 2}
    assert count_outcomes(centre, "f1", *span(2, 3)) == {}
    assert [flow.id for flow in centre.flows()] == ["f1", "f2"]


def test_part_of_an_hour() -> None:
    """The parts of a split hour add up to its count."""
    centre = centre_of_two_hours()
    start, _ = span(0, 1)
    parts = [
        count_outcomes(centre, "f1", start + low, start + low + 20 * MINUTE)["A"]
        for low in range(0, HOUR, 20 * MINUTE)
    ]
    assert parts == [1, 2, 2]


def test_settling() -> None:
    """Records become visible ``settle`` after they happened."""
    centre = StaticCentre({("f1", HOURS[0]): {"A": 60}}, settle=timedelta(minutes=30))
    start, end = span(0, 1)
    assert count_outcomes(centre, "f1", start, end, at=end) == {"A": 30}
    assert count_outcomes(centre, "f1", start, end, at=end + 30 * MINUTE) == {"A": 60}


def test_changes() -> None:
    """Corrections, renames and withdrawals change the given flow and time, and no snapshot."""
    centre = centre_of_two_hours()
    before = centre.snapshot()
    centre.correct("f1", HOURS[0], "A", 6)
    centre.rename("A", "Z", flow_id="f1", since=HOURS[1])
    centre.withdraw("B")
    centre.put("f3", HOURS[2], {"C": 3})
    assert count_outcomes(centre, "f1", *span(0, 2)) == {"A": 6, "Z": 2}
    assert count_outcomes(centre, "f2", *span(0, 2)) == {"A": 1}
    assert count_outcomes(centre, "f3", *span(0, 3)) == {"C": 3}
    assert count_outcomes(before, "f1", *span(0, 2)) == {"A": 7, "B": 0}
    centre.clear()
    assert count_outcomes(centre, "f1", *span(0, 2)) == {}
    assert not centre.is_final(0, NOON)

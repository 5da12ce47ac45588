"""The contact centre that is told its figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from service.simulator.instants import HOUR, MINUTE, milliseconds
from service.simulator.static import StaticCentre

HOURS = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(4)]
NOON = milliseconds(datetime(2024, 1, 2, tzinfo=UTC))


def centre_of_two_hours() -> StaticCentre:
    return StaticCentre(
        {("f1", HOURS[0]): {"A": 5, "B": 0}, ("f1", HOURS[1]): {"A": 2}, ("f2", HOURS[0]): {"A": 1}}
    )


def tally(centre: StaticCentre, flow: str, start: int, end: int, at: int = NOON) -> dict[str, int]:
    return {name: count for _, name, count in centre.tally(flow, start, end, at)}


def span(first: int, after: int) -> tuple[int, int]:
    return milliseconds(HOURS[first]), milliseconds(HOURS[after])


def test_hours_add_up_and_zero_is_no_silence() -> None:
    """Figures add up over hours; a zero that was said is reported, silence is not."""
    centre = centre_of_two_hours()
    assert tally(centre, "f1", *span(0, 2)) == {"A": 7, "B": 0}
    assert tally(centre, "f1", *span(1, 2)) == {"A": 2}
    assert tally(centre, "f1", *span(2, 3)) == {}
    assert [flow.id for flow in centre.flows()] == ["f1", "f2"]


def test_part_of_an_hour_gets_its_part() -> None:
    """An hour cut in two gives its figure in two parts that add up."""
    centre = centre_of_two_hours()
    start, _ = span(0, 1)
    parts = [
        tally(centre, "f1", start + low, start + low + 20 * MINUTE)["A"] for low in range(0, HOUR, 20 * MINUTE)
    ]
    assert parts == [1, 2, 2]


def test_it_settles_when_told_to() -> None:
    """Records are seen ``settle`` after they happened."""
    centre = StaticCentre({("f1", HOURS[0]): {"A": 60}}, settle=timedelta(minutes=30))
    start, end = span(0, 1)
    assert tally(centre, "f1", start, end, at=end) == {"A": 30}
    assert tally(centre, "f1", start, end, at=end + 30 * MINUTE) == {"A": 60}


def test_changes_reach_what_they_name() -> None:
    """Corrections, renames and withdrawals change the flow and the time they name, and no snapshot."""
    centre = centre_of_two_hours()
    before = centre.snapshot()
    centre.correct("f1", HOURS[0], "A", 6)
    centre.rename("A", "Z", flow_id="f1", since=HOURS[1])
    centre.withdraw("B")
    centre.put("f3", HOURS[2], {"C": 3})
    assert tally(centre, "f1", *span(0, 2)) == {"A": 6, "Z": 2}
    assert tally(centre, "f2", *span(0, 2)) == {"A": 1}
    assert tally(centre, "f3", *span(0, 3)) == {"C": 3}
    assert tally(before, "f1", *span(0, 2)) == {"A": 7, "B": 0}
    centre.clear()
    assert tally(centre, "f1", *span(0, 2)) == {}
    assert not centre.final(0, NOON)

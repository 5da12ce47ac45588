"""What a client sees of a centre: divisions, retention, and the nightly pipeline's corrections."""

from __future__ import annotations

from datetime import UTC, datetime

from service.simulator import GeneratedCentre
from service.simulator.instants import DAY, HOUR, to_milliseconds
from service.simulator.restricted_centre import PIPELINE_HOUR, NightlyCentre, RestrictedCentre

CENTRE = GeneratedCentre(seed=3, flows=3, outcomes=2)
FLOW, OTHER = (flow.id for flow in CENTRE.flows()[:2])
NOW = to_milliseconds(datetime(2024, 6, 20, 12, tzinfo=UTC))
TODAY = NOW - 12 * HOUR


def total(centre: RestrictedCentre | NightlyCentre | GeneratedCentre, flow: str, start: int, end: int) -> int:
    return sum(count for _, _, count in centre.count_outcomes(flow, start, end, NOW))


def test_records_older_than_the_retention_are_gone() -> None:
    """Before the limit all of them, in the day at the limit those before its hour; later days are complete."""
    centre = RestrictedCentre(CENTRE, 10 * DAY, frozenset())
    limit = TODAY - 10 * DAY
    assert total(centre, FLOW, limit - 3 * DAY, limit) == 0
    assert total(centre, FLOW, limit, limit + DAY) == total(CENTRE, FLOW, limit + 12 * HOUR, limit + DAY)
    assert 0 < total(centre, FLOW, limit, limit + DAY) < total(CENTRE, FLOW, limit, limit + DAY)
    assert total(centre, FLOW, limit + DAY, limit + 2 * DAY) == total(CENTRE, FLOW, limit + DAY, limit + 2 * DAY)
    assert not centre.is_final(limit, NOW)


def test_a_flow_of_another_division_is_listed_without_figures() -> None:
    """The others have all of theirs."""
    centre = RestrictedCentre(CENTRE, None, frozenset({FLOW})).snapshot()
    assert centre.flows() == CENTRE.flows()
    span = TODAY - 3 * DAY, TODAY - 2 * DAY
    assert centre.count_outcomes(FLOW, *span, NOW) == []
    assert centre.count_outcomes(OTHER, *span, NOW) == CENTRE.count_outcomes(OTHER, *span, NOW) != []


def test_the_pipeline_corrects_a_day_once_after_two_or_three_nights() -> None:
    """Nothing before, the same ever after; the parts of a day add up."""
    centre = NightlyCentre(CENTRE)
    day = TODAY // DAY
    nights = set()
    for back in range(1, 30):
        first = next(
            night
            for night in range(1, 9)
            if centre.correction(FLOW, day - back, (day - back + 1 + night) * DAY + PIPELINE_HOUR)
        )
        nights.add(first)
        assert centre.correction(FLOW, day - back, (day - back + 1 + first) * DAY + PIPELINE_HOUR - 1) == 0
    assert nights == {2, 3}
    start = (day - 6) * DAY
    whole = total(centre, FLOW, start, start + DAY)
    assert whole > total(CENTRE, FLOW, start, start + DAY)
    assert sum(total(centre, FLOW, start + hour * HOUR, start + (hour + 1) * HOUR) for hour in range(24)) == whole

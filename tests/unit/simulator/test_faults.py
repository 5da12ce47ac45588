"""Schedules of faults, and what they do to a page."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from service.simulator.faults import FAULT_NAMES, Fault, FaultPlan, Faults, Occasion
from service.simulator.page_corruption import distort


def occasion(**faults: Fault) -> Occasion:
    return FaultPlan(Faults(**faults), Counter()).occasion("query")


def page() -> dict[str, Any]:
    entry = {
        "group": {"flow-id": "f1"},
        "interval": "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
        "metrics": {
            "flow-outcomes": {"A": {"count": 3, "percentOfTotal": 0.75}, "B": {"count": 1, "percentOfTotal": 0.25}}
        },
    }
    return {"nextPageToken": "t", "metrics": ["flow-outcomes"], "data": [entry, json.loads(json.dumps(entry))]}


def distorted(**faults: Fault) -> Any:  # noqa: ANN401 - JSON
    return json.loads(distort(page(), occasion(**faults)))


def outcomes(**faults: Fault) -> Any:  # noqa: ANN401 - JSON
    return distorted(**faults)["data"][0]["metrics"]["flow-outcomes"]


def test_schedules() -> None:
    """A fault strikes at its page, its request, as often as it may, and by chance as the seed has it."""
    fired: Counter[str] = Counter()
    plan = FaultPlan(Faults(missing_token=Fault(page=2, times=1), slow=Fault(request=3)), fired)
    struck = []
    for number in range(4):
        now = plan.occasion("query")
        now.page = number % 2 + 1
        struck.append((bool(now.strike("missing_token")), bool(now.strike("slow"))))
    assert struck == [(False, False), (True, False), (False, True), (False, False)]
    assert fired == {"missing_token": 1, "slow": 1}
    plan.switch("missing_token", None)
    plan.switch("slow", Fault(probability=0.3, seed=5))
    hits = [bool(plan.occasion("query").strike("slow")) for _ in range(200)]
    assert 30 < sum(hits) < 90
    plan.switch("slow", None)
    assert plan.idle
    with pytest.raises(KeyError):
        plan.switch("nonsense", None)


def test_nothing_on_changes_nothing() -> None:
    """Without a fault the page is as it was."""
    assert distorted() == page()


@pytest.mark.parametrize(("value", "count"), [(None, "12"), (-1, -1), (1.5, 1.5), (2**63, 2**63), ("null", None)])
def test_bad_counts(value: object, count: object) -> None:
    """The first outcome's count is what was asked for; the second's is whole."""
    spoilt = outcomes(bad_count=Fault(value))
    assert spoilt["A"] == {"count": count, "percentOfTotal": 0.75}
    assert spoilt["B"] == {"count": 1, "percentOfTotal": 0.25}


def test_bad_names() -> None:
    """Each kind of bad name is written as JSON can write it."""
    assert "A\0" in outcomes(nul_name=Fault())
    assert "A\ud800" in outcomes(surrogate_name=Fault())
    assert b"A\\ud800" in distort(page(), occasion(surrogate_name=Fault()))
    assert max(len(name.encode()) for name in outcomes(long_name=Fault())) == 513
    assert "" in outcomes(empty_name=Fault())
    with pytest.raises(UnicodeDecodeError):
        distort(page(), occasion(invalid_utf8=Fault())).decode()


def test_bad_entries() -> None:
    """The first entry is spoilt, the second is not."""
    good = page()["data"][1]
    for fault, spoilt in (
        ({"missing_flow": Fault()}, good | {"group": {}}),
        ({"bad_entry": Fault()}, 17),
        ({"bad_interval": Fault(5)}, good | {"interval": 5}),
        (
            {"bucket_outside": Fault(1)},
            good | {"interval": "2023-01-01T00:00:00.000Z/2023-01-02T00:00:00.000Z"},
        ),
    ):
        assert distorted(**fault)["data"] == [spoilt, good]


def test_duplicates() -> None:
    """The first entry comes once more, as it was or with other counts."""
    assert distorted(duplicate_equal=Fault())["data"] == [*page()["data"], page()["data"][0]]
    other = distorted(duplicate_different=Fault())["data"][2]["metrics"]["flow-outcomes"]
    assert other["A"]["count"] == 4


def test_withdrawn_outcomes() -> None:
    """An outcome is missing, by its name and from an instant on."""
    assert list(outcomes(withdrawn=Fault())) == ["B"]
    assert list(outcomes(withdrawn=Fault("B"))) == ["A"]
    assert list(outcomes(withdrawn=Fault({"outcome": "B", "since": "2024-01-01T00:00:00.000Z"}))) == ["A"]
    assert list(outcomes(withdrawn=Fault({"outcome": "B", "since": "2024-01-01T01:00:00.000Z"}))) == ["A", "B"]


def test_variant_shapes() -> None:
    """The shapes that the contract accepts beside the usual one."""
    assert distorted(flow_beside=Fault())["data"][0].keys() == {"flow-id", "interval", "metrics"}
    assert distorted(dates_apart=Fault())["data"][0]["dateTo"] == "2024-01-02T00:00:00.000Z"
    assert distorted(bare=Fault()) == {"metrics": page()["data"][0]["metrics"]}
    assert outcomes(no_percent=Fault())["A"] == {"count": 3}
    assert outcomes(extra_fields=Fault())["A"]["count"] == 3


def test_broken_pages() -> None:
    """Fields go missing, and the text is no page at all."""
    assert "nextPageToken" not in distorted(missing_token=Fault())
    assert "data" not in distorted(missing_data=Fault())
    assert isinstance(outcomes(outcomes_array=Fault()), list)
    assert distort(page(), occasion(not_json=Fault())).startswith(b"<")
    assert b"[[[[[" in distort(page(), occasion(deep_json=Fault(5)))
    assert b'"count": 99999,' in distort(page(), occasion(long_number=Fault(5)))


def test_only_what_struck_is_counted() -> None:
    """A page with nothing to spoil lets entry faults pass uncounted."""
    fired: Counter[str] = Counter()
    plan = FaultPlan(Faults(bad_count=Fault(), duplicate_equal=Fault(), missing_token=Fault()), fired)
    distort({"nextPageToken": None, "data": []}, plan.occasion("query"))
    assert fired == {"missing_token": 1}


@pytest.mark.parametrize("name", sorted(FAULT_NAMES))
def test_every_fault_is_told(name: str) -> None:
    """Each switch stands in the documentation of them all."""
    assert f"        {name}: " in (Faults.__doc__ or "")


@pytest.mark.parametrize("name", sorted(FAULT_NAMES))
def test_all_content_faults_go_together(name: str) -> None:
    """No two faults of a page's content trip over each other."""
    content = {other: Fault() for other in FAULT_NAMES if other != name}
    assert distort(page(), occasion(**content))

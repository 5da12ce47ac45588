"""Fault schedules and page corruption."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from service.simulator.faults import FAULT_NAMES, Fault, FaultPlan, Faults, RequestFaults
from service.simulator.page_corruption import corrupt_page


def request_faults(**faults: Fault) -> RequestFaults:
    return FaultPlan(Faults(**faults), Counter()).for_request("query")


def page() -> dict[str, Any]:
    entry = {
        "group": {"flow-id": "f1"},
        "interval": "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
        "metrics": {
            "flow-outcomes": {"A": {"count": 3, "percentOfTotal": 0.75}, "B": {"count": 1, "percentOfTotal": 0.25}}
        },
    }
    return {"nextPageToken": "t", "metrics": ["flow-outcomes"], "data": [entry, json.loads(json.dumps(entry))]}


def corrupted(**faults: Fault) -> Any:  # noqa: ANN401 - JSON
    return json.loads(corrupt_page(page(), request_faults(**faults)))


def outcomes(**faults: Fault) -> Any:  # noqa: ANN401 - JSON
    return corrupted(**faults)["data"][0]["metrics"]["flow-outcomes"]


def test_schedules() -> None:
    """A fault fires at its page and request, at most as often as set, with its probability by its seed."""
    fired: Counter[str] = Counter()
    plan = FaultPlan(Faults(missing_token=Fault(page=2, times=1), slow=Fault(request=3)), fired)
    results = []
    for number in range(4):
        faults = plan.for_request("query")
        faults.page = number % 2 + 1
        results.append((bool(faults.fire("missing_token")), bool(faults.fire("slow"))))
    assert results == [(False, False), (True, False), (False, True), (False, False)]
    assert fired == {"missing_token": 1, "slow": 1}
    plan.switch("missing_token", None)
    plan.switch("slow", Fault(probability=0.3, seed=5))
    hits = [bool(plan.for_request("query").fire("slow")) for _ in range(200)]
    assert 30 < sum(hits) < 90
    plan.switch("slow", None)
    assert plan.idle
    with pytest.raises(KeyError):
        plan.switch("nonsense", None)


def test_no_faults() -> None:
    """Without faults a page is unchanged."""
    assert corrupted() == page()


@pytest.mark.parametrize(("value", "count"), [(None, "12"), (-1, -1), (1.5, 1.5), (2**63, 2**63), ("null", None)])
def test_bad_counts(value: object, count: object) -> None:
    """The first outcome's count is the fault's value; the second outcome is unchanged."""
    corrupt = outcomes(bad_count=Fault(value))
    assert corrupt["A"] == {"count": count, "percentOfTotal": 0.75}
    assert corrupt["B"] == {"count": 1, "percentOfTotal": 0.25}


def test_bad_names() -> None:
    """Each kind of invalid name is in the page's JSON."""
    assert "A\0" in outcomes(nul_name=Fault())
    assert "A\ud800" in outcomes(surrogate_name=Fault())
    assert b"A\\ud800" in corrupt_page(page(), request_faults(surrogate_name=Fault()))
    assert max(len(name.encode()) for name in outcomes(long_name=Fault())) == 513
    assert "" in outcomes(empty_name=Fault())
    with pytest.raises(UnicodeDecodeError):
        corrupt_page(page(), request_faults(invalid_utf8=Fault())).decode()


def test_bad_entries() -> None:
    """The first entry is corrupt, the second unchanged."""
    good = page()["data"][1]
    for fault, corrupt in (
        ({"missing_flow": Fault()}, good | {"group": {}}),
        ({"bad_entry": Fault()}, 17),
        ({"bad_interval": Fault(5)}, good | {"interval": 5}),
        (
            {"bucket_outside": Fault(1)},
            good | {"interval": "2023-01-01T00:00:00.000Z/2023-01-02T00:00:00.000Z"},
        ),
    ):
        assert corrupted(**fault)["data"] == [corrupt, good]


def test_duplicates() -> None:
    """The first entry is repeated, equal or with different counts."""
    assert corrupted(duplicate_equal=Fault())["data"] == [*page()["data"], page()["data"][0]]
    other = corrupted(duplicate_different=Fault())["data"][2]["metrics"]["flow-outcomes"]
    assert other["A"]["count"] == 4


def test_withdrawn_outcomes() -> None:
    """An outcome is absent, by name and from an instant on."""
    assert list(outcomes(withdrawn=Fault())) == ["B"]
    assert list(outcomes(withdrawn=Fault("B"))) == ["A"]
    assert list(outcomes(withdrawn=Fault({"outcome": "B", "since": "2024-01-01T00:00:00.000Z"}))) == ["A"]
    assert list(outcomes(withdrawn=Fault({"outcome": "B", "since": "2024-01-01T01:00:00.000Z"}))) == ["A", "B"]


def test_variant_shapes() -> None:
    """The page has each of the alternative shapes that the contract accepts."""
    assert corrupted(flow_beside=Fault())["data"][0].keys() == {"flow-id", "interval", "metrics"}
    assert corrupted(dates_apart=Fault())["data"][0]["dateTo"] == "2024-01-02T00:00:00.000Z"
    assert corrupted(bare=Fault()) == {"metrics": page()["data"][0]["metrics"]}
    assert outcomes(no_percent=Fault())["A"] == {"count": 3}
    assert outcomes(extra_fields=Fault())["A"]["count"] == 3


def test_broken_pages() -> None:
    """Fields are missing, or the text is not a page."""
    assert "nextPageToken" not in corrupted(missing_token=Fault())
    assert "data" not in corrupted(missing_data=Fault())
    assert isinstance(outcomes(outcomes_array=Fault()), list)
    assert corrupt_page(page(), request_faults(not_json=Fault())).startswith(b"<")
    assert b"[[[[[" in corrupt_page(page(), request_faults(deep_json=Fault(5)))
    assert b'"count": 99999,' in corrupt_page(page(), request_faults(long_number=Fault(5)))


def test_a_fault_without_effect_is_not_counted() -> None:
    """Faults of an entry are not counted for a page without entries."""
    fired: Counter[str] = Counter()
    plan = FaultPlan(Faults(bad_count=Fault(), duplicate_equal=Fault(), missing_token=Fault()), fired)
    corrupt_page({"nextPageToken": None, "data": []}, plan.for_request("query"))
    assert fired == {"missing_token": 1}


@pytest.mark.parametrize("name", sorted(FAULT_NAMES))
def test_every_fault_is_documented(name: str) -> None:
    """The docstring of Faults describes each switch."""
    assert f"        {name}: " in (Faults.__doc__ or "")


@pytest.mark.parametrize("name", sorted(FAULT_NAMES))
def test_content_faults_can_be_combined(name: str) -> None:
    """All faults of a page's content can fire together."""
    content = {other: Fault() for other in FAULT_NAMES if other != name}
    assert corrupt_page(page(), request_faults(**content))

"""Measures and dimensions in the configuration."""

from typing import Any

import pytest

from service.config import config_from
from service.config.values import step
from service.model import Granularity, Measure
from service.plan.granularity import WindowKind, for_window
from tests.support.configs import faults_of, tree


def measuring(*jobs: dict[str, Any], api: str = "flow-aggregates") -> dict[str, Any]:
    """Jobs of acme, and of globex on the query builder where a job says so."""
    changed = tree(orgs__acme__api=api, orgs__globex={**tree()["orgs"]["acme"]})
    changed["jobs"] = {
        f"job_{place}": {"since": "P30D", "orgs": ["acme"], **job} for place, job in enumerate(jobs)
    }
    return changed


def test_measures_and_dimensions() -> None:
    """Dimensions are sorted; what an org's jobs measure, and how its figures are split."""
    config = config_from(
        measuring(
            {"group_by": ["mediaType", "flowVersion"]},
            {"measure": "milestones", "window": "hour", "granularity": "auto", "group_by": ["dnis"]},
            {"group_by": ["flowVersion", "mediaType"], "window": "month"},
            {"window": "month", "granularity": "monthly"},
        )
    )
    acme, globex = config.orgs["acme"], config.orgs["globex"]
    assert config.jobs["job_0"].group_by == ("flowVersion", "mediaType")
    assert acme.measures == (Measure.OUTCOMES, Measure.MILESTONES)
    assert globex.measures == (Measure.OUTCOMES,)
    assert acme.group_by(Granularity.DAILY, Measure.OUTCOMES) == ("flowVersion", "mediaType")
    assert acme.group_by(Granularity.MONTHLY, Measure.OUTCOMES) == ()
    assert acme.group_by(Granularity.HOURLY, Measure.OUTCOMES) == ()
    assert acme.group_by(Granularity.HOURLY, Measure.MILESTONES) == ("dnis",)
    assert acme.group_by(Granularity.MONTHLY, Measure.MILESTONES) == ("dnis",), "a window may become coarser"
    assert acme.group_by(Granularity.DAILY, Measure.EXECUTIONS) == ()


@pytest.mark.parametrize("window", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("requested", ["auto", "hourly", "daily", "monthly"])
def test_the_granularity_of_a_jobs_windows(window: WindowKind, requested: str) -> None:
    """Is the one that planning gives them."""
    assert step(window, requested) == for_window(window, requested)


@pytest.mark.parametrize(
    ("job", "key", "message"),
    [
        ({"measure": "calls"}, "measure", "outcomes"),
        ({"group_by": ["ani"]}, "group_by", "ani would store personal data"),
        (
            {"group_by": ["mediaType", "conversationId", "sessionId"]},
            "group_by",
            "conversationId, sessionId would",
        ),
        ({"group_by": ["externalContactId"]}, "group_by", "externalContactId would"),
        ({"group_by": ["flowOutcomeValue"]}, "group_by", "must be dimensions among direction, divisionId"),
        ({"group_by": ["mediatype"]}, "group_by", "mediaType"),
        ({"group_by": ["mediaType", "mediaType"]}, "group_by", ""),
        ({"group_by": "mediaType"}, "group_by", "must be a list"),
        ({"group_by": ["mediaType"], "orgs": []}, "group_by", "which these orgs do not have: globex"),
        ({"group_by": ["mediaType"], "orgs": ["acme", "globex"]}, "group_by", "do not have: globex"),
        ({"measure": "executions", "orgs": ["globex"]}, "measure", "needs api: flow-aggregates"),
    ],
)
def test_invalid_measures_and_dimensions(job: dict[str, Any], key: str, message: str) -> None:
    """What the API lacks, what would store personal data, and what an org's API has not."""
    faults = faults_of(measuring(job))
    assert [name for name in faults if not name.startswith(f"jobs.job_0.{key}")] == []
    assert message in "".join(faults.values())


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"group_by": ["dnis"]},
        {"window": "week"},
        {"window": "month", "granularity": "auto"},
        {"window": "month", "granularity": "hourly"},
    ],
)
def test_one_grouping_for_an_org_a_granularity_and_a_measure(other: dict[str, Any]) -> None:
    """Anything else is a fault of the later job, which names the other; other orgs and measures may differ."""
    faults = faults_of(measuring({"group_by": ["mediaType"]}, other))
    assert list(faults) == ["jobs.job_1.group_by"]
    assert "jobs.job_0" in faults["jobs.job_1.group_by"]
    assert "outcomes of acme at the granularity daily" in faults["jobs.job_1.group_by"]
    for apart in ({"orgs": ["globex"]}, {"granularity": "hourly"}, {"measure": "executions"}):
        config_from(measuring({"group_by": ["mediaType"]}, {**other, "window": "day", "group_by": [], **apart}))


def test_ad_hoc_measures() -> None:
    """Only outcomes on the query builder; an entry with another measure is another one."""
    entry = {"org": "globex", "from": "2024-01-01", "to": "2024-01-02", "measure": "milestones"}
    faults = faults_of({**measuring({}), "ad_hoc": {"recount": entry}})
    assert faults == {"ad_hoc.recount.measure": "needs api: flow-aggregates, which globex does not have"}
    config = config_from(
        {**measuring({}), "ad_hoc": {"a": {**entry, "org": "acme"}, "b": {**entry, "measure": None}}}
    )
    assert config.ad_hoc["a"].content_hash != config.ad_hoc["b"].content_hash

"""What the flow-aggregates API is queried for, by measure, and the figures that a group reports in one bucket.

Metrics and dimensions: official Python SDK 269.0.0, ``FlowAggregateQueryPredicate`` and ``FlowAggregationQuery``.
Where nothing happened, a metric is absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeGuard

from service.model import DurationStats, Figure, Measure

COUNT, FAILED, DURATION = "nFlowOutcome", "nFlowOutcomeFailed", "tFlowOutcome"
EXECUTIONS, EXECUTION_TIME = "nFlow", "tFlow"
EXITS = ("tFlowDisconnect", "tFlowExit")
MILESTONES, MILESTONE_EXECUTIONS = "nFlowMilestone", "oFlowMilestone"

Stats = Mapping[str, DurationStats]
"""The statistics of one datum by metric; each has a count, which is a list of two where it is contradictory."""


class Request(NamedTuple):
    """The request of a measure.

    Attributes:
        group_by: the dimensions of every query, before those that a job adds.
        metrics: the metrics.
        key: the dimensions that identify a figure; all others split it into parts, which add up.
    """

    group_by: tuple[str, ...]
    metrics: tuple[str, ...]
    key: frozenset[str]


REQUESTS: Mapping[Measure, Request] = {
    Measure.OUTCOMES: Request(
        ("flowId", "flowOutcomeId", "flowOutcomeValue"),
        (COUNT, DURATION),
        frozenset(("flowId", "flowOutcomeId")),
    ),
    # One query: an execution has one reason, so those without it and those of each reason add up to all.
    Measure.EXECUTIONS: Request(
        ("flowId", "exitReason"), (EXECUTIONS, EXECUTION_TIME, *EXITS), frozenset(("flowId",))
    ),
    Measure.MILESTONES: Request(
        ("flowId", "flowMilestoneId"),
        (MILESTONES, MILESTONE_EXECUTIONS),
        frozenset(("flowId", "flowMilestoneId")),
    ),
}

_ABSENT = object()


def figures(measure: Measure, group: Mapping[str, Any], stats: Stats | None) -> dict[str, Figure]:
    """The figures of one group in one bucket, by the key of their series; empty where it reports none.

    Args:
        measure: what was requested.
        group: the group's dimensions.
        stats: by metric; None where their form is unknown, which normalisation rejects.
    """
    if measure is Measure.EXECUTIONS:
        return _executions(group, stats)
    figure = _outcome(group, stats) if measure is Measure.OUTCOMES else _milestone(stats)
    name = group.get("flowOutcomeId" if measure is Measure.OUTCOMES else "flowMilestoneId")
    # What has no id is unknown; normalisation rejects the empty id.
    return {} if figure is None else {name if isinstance(name, str) else "": figure}


def _outcome(group: Mapping[str, Any], stats: Stats | None) -> Figure | None:
    if stats is None:
        return Figure(None)
    total, failed = _count(stats, COUNT), _count(stats, FAILED)
    value = group.get("flowOutcomeValue", _ABSENT)
    duration = stats.get(DURATION) if value == "SUCCESS" else None
    if total is _ABSENT and (failed is _ABSENT or _is_zero(failed)):
        return None if duration is None else Figure(None, duration=duration)
    figure = _split(total, failed, value)
    figure.duration = None if total is None else duration
    return figure


def _split(total: object, failed: object, value: object) -> Figure:
    """Count, successes and failures.

    The group's value says whether they are successes or failures (official Python SDK 269.0.0: SUCCESS, FAILURE or
    UNKNOWN). A value that is neither counts in the total only. nFlowOutcomeFailed is not requested. If it is sent
    without a value, successes are those that did not fail. If it contradicts the value, the figure is
    inconsistent, and normalisation makes the split null.
    """
    if total is _ABSENT:
        return Figure(None, None, None, None if failed is _ABSENT else failed)
    if value is None or value is _ABSENT:
        if failed is _ABSENT:
            return Figure(total)
        if _is_number(total) and _is_number(failed):
            return Figure(total, None, total - failed, failed)
        return Figure(total, None, failed, failed)
    success, failure = (total, 0) if value == "SUCCESS" else (0, total if value == "FAILURE" else 0)
    if failed is not _ABSENT and failed != failure:
        return Figure(total, None, value, failed)
    return Figure(total, None, success, failure)


def _executions(group: Mapping[str, Any], stats: Stats | None) -> dict[str, Figure]:
    """Executions with their durations, and the durations up to each kind of exit, by its reason.

    An absent nFlow beside tFlow counts 0: no execution began in the bucket, and some ended in it.
    """
    if stats is None:
        return {"": Figure(None)}
    found = {}
    if EXECUTIONS in stats or EXECUTION_TIME in stats:
        count = stats[EXECUTIONS].count if EXECUTIONS in stats else 0
        found[EXECUTIONS] = _timed(count, stats.get(EXECUTION_TIME))
    reason = group.get("exitReason")
    for metric in EXITS:
        if metric in stats:
            name = f"{metric}:{reason if isinstance(reason, str) else ''}"
            found[name] = _timed(stats[metric].count, stats[metric])
    return found


def _timed(count: object, duration: DurationStats | None) -> Figure:
    """A count with its durations; a null count, which is invalid, has none, or it would be taken for a part."""
    return Figure(count, duration=None if count is None else duration)


def _milestone(stats: Stats | None) -> Figure | None:
    """Milestones and, where its statistics are a count, the executions that reached them."""
    if stats is None:
        return Figure(None)
    if MILESTONES not in stats:
        return None
    executions = stats.get(MILESTONE_EXECUTIONS)
    return Figure(stats[MILESTONES].count, executions=None if executions is None else executions.count)


def _count(stats: Stats, metric: str) -> object:
    return stats[metric].count if metric in stats else _ABSENT


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_zero(value: object) -> bool:
    return _is_number(value) and value == 0

"""The metrics of the flow-aggregates API, grouped by any of its dimensions, from a contact centre's records.

A metric that has no meaning for one of the dimensions gives absent data. A dimension that the interaction lacks,
such as the message type of a call, is absent from its group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

from service.simulator.buckets import Interval
from service.simulator.centre import Centre, Flow
from service.simulator.record_traits import FAILURE, SLOTS, Kind, Slot, flow_traits, pattern, slot_offset, variant

OUTCOME_METRICS = frozenset({"nFlowOutcome", "nFlowOutcomeFailed", "tFlowOutcome"})
EXECUTION_METRICS = frozenset({"nFlow", "tFlow", "tFlowDisconnect", "tFlowExit"})
MILESTONE_METRICS = frozenset({"nFlowMilestone", "oFlowMilestone"})
METRICS = OUTCOME_METRICS | EXECUTION_METRICS | MILESTONE_METRICS
"""The metrics of the SDK's ``FlowAggregationView``."""

_SHARED = frozenset(
    {
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
    }
)
_MEANINGFUL = {
    **dict.fromkeys(OUTCOME_METRICS, _SHARED | {"flowOutcomeId", "flowOutcomeValue"}),
    **dict.fromkeys(EXECUTION_METRICS, _SHARED | {"exitReason"}),
    **dict.fromkeys(MILESTONE_METRICS, _SHARED | {"flowMilestoneId"}),
}

GroupKey: TypeAlias = tuple[str | None, ...]
"""A group's values in the order of the dimensions; None where it lacks one."""

Cell: TypeAlias = tuple[GroupKey, str]
"""A group and a metric."""

Stats: TypeAlias = tuple[int, int | None, int, int]
"""Count, and of durations the sum, the smallest and the largest, in milliseconds; a sum of None: no durations."""

_PatternKey: TypeAlias = tuple[str, str, Kind, int, int]
"""The arguments of :func:`~service.simulator.record_traits.pattern`."""

_Observation: TypeAlias = tuple[str, Mapping[str, str], int, int | None]
"""A metric, dimensions that only its kind has, a count, and a duration in milliseconds."""


def format_stats(stats: Stats) -> dict[str, int]:
    """Return stats as the API sends them."""
    count, spent, low, high = stats
    return {"count": count} if spent is None else {"max": high, "min": low, "count": count, "sum": spent}


@dataclass(frozen=True, slots=True)
class _Column:
    """What a pattern's records add to one cell.

    Attributes:
        cell: the cell.
        before: how much the slots before each slot add to the count, over two turns of the pattern.
        durations: the durations of two turns, one for each that is counted; empty without durations.
    """

    cell: Cell
    before: Sequence[int]
    durations: Sequence[int]

    def add(self, cells: dict[Cell, Stats], first: int, count: int) -> None:
        """Add ``count`` successive records from a slot on to the cells."""
        turns, rest = divmod(count, SLOTS)
        low, high = self.before[first], self.before[first + rest]
        turn = self.before[SLOTS] * turns
        counted = turn + high - low
        if not counted:
            return
        known = cells.get(self.cell)
        if not self.durations:
            cells[self.cell] = (counted + known[0] if known else counted, None, 0, 0)
            return
        spent = self.durations[low:high]
        total = sum(spent)
        if turns:
            total += sum(self.durations) // 2 * turns
            spent = self.durations
        if known is None or known[1] is None:
            cells[self.cell] = (counted, total, min(spent), max(spent))
        else:
            cells[self.cell] = (
                known[0] + counted,
                known[1] + total,
                min(known[2], *spent),
                max(known[3], *spent),
            )


class Tally:
    """Counts the records of a centre for one query.

    Args:
        dimensions: the dimensions of the groups, in their order.
        metrics: names of metrics.
        division_of: the division's id of a flow, by the flow's id.
    """

    def __init__(
        self, dimensions: Sequence[str], metrics: Iterable[str], division_of: Callable[[str], str]
    ) -> None:
        self._dimensions = tuple(dimensions)
        self._metrics = frozenset(each for each in metrics if _MEANINGFUL[each].issuperset(dimensions))
        self._division_of = division_of
        self._columns: dict[_PatternKey, list[_Column]] = {}

    def bucket(self, centre: Centre, flow: Flow, bucket: Interval, at: int) -> dict[Cell, Stats]:
        """Return the cells of a flow's bucket, as visible at ``at``."""
        cells: dict[Cell, Stats] = {}
        for start, end, version in flow_traits(flow.id).versions(*bucket) if self._metrics else ():
            for run in centre.record_runs(flow.id, start, end, at):
                key = flow.id, run.outcome_id, run.kind, version, variant(run.origin)
                columns = self._columns.get(key)
                if columns is None:
                    columns = self._columns[key] = self._project(flow, key)
                first = (slot_offset(run.outcome_id, run.origin) + run.first) % SLOTS
                for column in columns:
                    column.add(cells, first, run.after - run.first)
        return cells

    def _project(self, flow: Flow, key: _PatternKey) -> list[_Column]:
        """Group a pattern by the dimensions of the query."""
        _, outcome_id, _, version, _ = key
        shared = {
            "divisionId": self._division_of(flow.id),
            "flowId": flow.id,
            "flowName": flow.name,
            "flowType": flow_traits(flow.id).flow_type,
            "flowVersion": f"{version}.0",
        }
        counts: dict[Cell, list[int]] = {}
        durations: dict[Cell, list[int]] = {}
        for at, slot in enumerate(pattern(*key)):
            values = {**shared, **slot.contact}
            for metric, own, count, milliseconds in self._observations(outcome_id, slot):
                if metric in self._metrics:
                    group = tuple(own.get(name) or values.get(name) for name in self._dimensions)
                    counts.setdefault((group, metric), [0] * SLOTS)[at] += count
                    if milliseconds is not None:
                        durations.setdefault((group, metric), []).append(milliseconds)
        return [
            _Column(cell, list(accumulate(by_slot * 2, initial=0)), durations.get(cell, []) * 2)
            for cell, by_slot in counts.items()
        ]

    def _observations(self, outcome_id: str, slot: Slot) -> Iterator[_Observation]:
        """Yield what a record adds to each kind of metric that is requested."""
        if self._metrics & OUTCOME_METRICS:
            outcome = {"flowOutcomeId": outcome_id, "flowOutcomeValue": slot.value}
            yield "nFlowOutcome", outcome, 1, None
            if slot.value == FAILURE:
                yield "nFlowOutcomeFailed", outcome, 1, None
            if slot.milliseconds is not None:
                yield "tFlowOutcome", outcome, 1, slot.milliseconds
        for execution in slot.executions if self._metrics & EXECUTION_METRICS else ():
            ended = {"exitReason": execution.exit_reason}
            yield "nFlow", ended, 1, None
            yield "tFlow", ended, 1, execution.milliseconds
            yield execution.metric, ended, 1, execution.milliseconds
        for milestone, times in slot.milestones if self._metrics & MILESTONE_METRICS else ():
            reached = {"flowMilestoneId": milestone}
            yield "nFlowMilestone", reached, times, None
            yield "oFlowMilestone", reached, 1, None

"""A contact centre whose past figures can be corrected by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from service.simulator.centre import Centre, Flow, GeneratedCentre, OutcomeCount, RecordRun
from service.simulator.instants import to_milliseconds
from service.simulator.record_traits import KINDS


class _Correction(NamedTuple):
    flow_id: str
    at: int
    outcome: str
    increase: int


class CorrectedCentre:
    """A generated centre plus corrections.

    Args:
        centre: the figures without corrections.
    """

    def __init__(self, centre: GeneratedCentre) -> None:
        self._centre = centre
        self._corrections: list[_Correction] = []

    def correct(self, flow_id: str, at: datetime, outcome: str, increase: int) -> None:
        """Add ``increase`` records of an outcome at one instant; visible from now on."""
        self._corrections.append(_Correction(flow_id, to_milliseconds(at), outcome, increase))

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in a stable order."""
        return self._centre.flows()

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Return every outcome with its name at this instant."""
        return self._centre.outcomes(at)

    def snapshot(self) -> Centre:
        """Return a copy that later corrections do not change."""
        copy = CorrectedCentre(self._centre)
        copy._corrections = list(self._corrections)
        return copy

    def is_final(self, end: int, at: int) -> bool:  # noqa: ARG002 - of the protocol
        """Return False: any figure may be corrected."""
        return False

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts of [start, end) as visible at ``at``; see :class:`Centre`."""
        counts = self._centre.count_outcomes(flow_id, start, end, at)
        for each in self._corrections_of(flow_id, start, end):
            counts = [
                (number, name, count + each.increase if name == each.outcome else count)
                for number, name, count in counts
            ]
        return counts

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records of [start, end) as visible at ``at``; see :class:`Centre`."""
        runs = self._centre.record_runs(flow_id, start, end, at)
        if corrections := self._corrections_of(flow_id, start, end):
            ids = {name: number for number, name, _ in self._centre.count_outcomes(flow_id, start, end, at)}
            runs += [
                RecordRun(ids[each.outcome], KINDS.get(each.outcome, "other"), each.at, 0, each.increase)
                for each in corrections
                if each.outcome in ids
            ]
        return runs

    def _corrections_of(self, flow_id: str, start: int, end: int) -> list[_Correction]:
        return [each for each in self._corrections if each.flow_id == flow_id and start <= each.at < end]

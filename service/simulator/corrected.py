"""A contact centre whose past is put right by hand: what somebody notices, and corrects, days later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from service.simulator.centre import Centre, Flow, GeneratedCentre, Tally
from service.simulator.instants import milliseconds


class _Correction(NamedTuple):
    flow_id: str
    happened: int
    outcome: str
    more: int


class CorrectedCentre:
    """Another centre's figures and what was corrected since.

    Args:
        centre: what is reported without any correction.
    """

    def __init__(self, centre: GeneratedCentre) -> None:
        self._centre = centre
        self._corrections: list[_Correction] = []

    def correct(self, flow_id: str, happened: datetime, outcome: str, more: int) -> None:
        """Report so many more of an outcome, all at one instant, from now on."""
        self._corrections.append(_Correction(flow_id, milliseconds(happened), outcome, more))

    def flows(self) -> Sequence[Flow]:
        """Every flow, in a lasting order."""
        return self._centre.flows()

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Every outcome, by the name that it has at this instant."""
        return self._centre.outcomes(at)

    def snapshot(self) -> Centre:
        """The centre as it is now, unmoved by later corrections."""
        copy = CorrectedCentre(self._centre)
        copy._corrections = list(self._corrections)
        return copy

    def final(self, end: int, at: int) -> bool:  # noqa: ARG002 - whatever the instants
        """Never: anything may be corrected."""
        return False

    def tally(self, flow_id: str, start: int, end: int, at: int) -> list[Tally]:
        """What was reported in [start, end) as visible at ``at``; see :class:`Centre`."""
        found = self._centre.tally(flow_id, start, end, at)
        for each in self._corrections:
            if each.flow_id == flow_id and start <= each.happened < end:
                found = [
                    (number, name, count + each.more if name == each.outcome else count)
                    for number, name, count in found
                ]
        return found

"""A contact centre that is told its figures, for tests that need to know every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from service.simulator.centre import Flow, Tally
from service.simulator.instants import HOUR, milliseconds


class StaticCentre:
    """Figures by (flow id, start of the hour), each a mapping of outcome name to count; changed at will.

    Args:
        figures: the counts; an outcome that is not in an hour's mapping is silent, a zero is reported.
        settle: how long after it happened a record is seen.
        flows: flow ids that exist beside those of ``figures``, without a figure.

    An hour that a stretch covers in part gives its proportional share, rounded so that the parts add up. An
    outcome's id is the name that it was put under, whatever it is entitled to later.
    """

    def __init__(
        self,
        figures: Mapping[tuple[str, datetime], Mapping[str, int]] | None = None,
        *,
        settle: timedelta = timedelta(0),
        flows: Sequence[str] = (),
    ) -> None:
        self._settle = settle // timedelta(milliseconds=1)
        self._hours: dict[str, dict[int, dict[str, int]]] = {flow: {} for flow in flows}
        self._titles: dict[str, str] = {}
        for (flow, hour), outcomes in (figures or {}).items():
            self.put(flow, hour, outcomes)

    def put(self, flow_id: str, hour: datetime, outcomes: Mapping[str, int]) -> None:
        """Say everything about one hour of a flow, in place of what was said of it."""
        self._hours.setdefault(flow_id, {})[milliseconds(hour)] = dict(outcomes)

    def correct(self, flow_id: str, hour: datetime, outcome: str, count: int) -> None:
        """Change one figure, or add it."""
        self._hours.setdefault(flow_id, {}).setdefault(milliseconds(hour), {})[outcome] = count

    def rename(self, old: str, new: str, *, flow_id: str | None = None, since: datetime | None = None) -> None:
        """Report what happened from ``since`` on (None: ever) under the new name, in one flow or all of them."""
        for outcomes in self._reached(flow_id, since):
            if old in outcomes:
                outcomes[new] = outcomes.pop(old) + outcomes.get(new, 0)

    def entitle(self, outcome_id: str, name: str) -> None:
        """Give an outcome another name, its id and all that it reported kept."""
        self._titles[outcome_id] = name

    def outcomes(self, at: int) -> Sequence[Flow]:  # noqa: ARG002 - whatever the instant
        """Every outcome that has a figure, or a name."""
        ids = dict.fromkeys(
            name for hours in self._hours.values() for figures in hours.values() for name in figures
        )
        return [Flow(each, self._titles.get(each, each)) for each in [*ids, *(self._titles.keys() - ids)]]

    def withdraw(self, outcome: str, *, flow_id: str | None = None, since: datetime | None = None) -> None:
        """Report an outcome no longer, of what happened from ``since`` on (None: ever), in one flow or all."""
        for outcomes in self._reached(flow_id, since):
            outcomes.pop(outcome, None)

    def clear(self) -> None:
        """Forget every figure; the flows stay."""
        for hours in self._hours.values():
            hours.clear()

    def flows(self) -> Sequence[Flow]:
        """Every flow, in the order in which they were first named; a flow's name is its id."""
        return [Flow(flow, flow) for flow in self._hours]

    def snapshot(self) -> StaticCentre:
        """A copy, unmoved by later changes."""
        copy = StaticCentre(flows=tuple(self._hours))
        copy._settle = self._settle
        copy._titles = dict(self._titles)
        for flow, hours in self._hours.items():
            copy._hours[flow] = {hour: dict(outcomes) for hour, outcomes in hours.items()}
        return copy

    def final(self, end: int, at: int) -> bool:  # noqa: ARG002 - whatever the instants
        """Never: a test may change anything."""
        return False

    def tally(self, flow_id: str, start: int, end: int, at: int) -> list[Tally]:
        """What was reported in [start, end) as visible at ``at``; see :class:`Centre`."""
        end = min(end, at - self._settle)
        counts: dict[str, int] = {}
        for hour, outcomes in sorted(self._hours.get(flow_id, {}).items()):
            low, high = max(start, hour) - hour, min(end, hour + HOUR) - hour
            if low < high:
                for name, count in outcomes.items():
                    counts[name] = counts.get(name, 0) + count * high // HOUR - count * low // HOUR
        return [(name, self._titles.get(name, name), count) for name, count in counts.items()]

    def _reached(self, flow_id: str | None, since: datetime | None) -> list[dict[str, int]]:
        first = None if since is None else milliseconds(since)
        return [
            outcomes
            for flow, hours in self._hours.items()
            if flow_id in (None, flow)
            for hour, outcomes in hours.items()
            if first is None or hour >= first
        ]

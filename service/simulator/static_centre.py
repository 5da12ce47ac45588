"""A contact centre with given figures, for tests that must know each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from service.simulator.centre import Flow, OutcomeCount, RecordRun
from service.simulator.instants import HOUR, to_milliseconds
from service.simulator.record_traits import KINDS


class StaticCentre:
    """Counts by flow and hour, which a test may change.

    Args:
        figures: outcome name to count, by (flow id, start of the hour). An outcome not in an hour's mapping is
            absent; a zero is reported.
        settle: how long after it happened a record becomes visible.
        flows: further flow ids, without figures.

    An interval that covers part of an hour gets a proportional share, rounded so that the parts add up. An
    outcome's id is the name under which it was first set, whatever it is renamed to.
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
        self._names: dict[str, str] = {}
        for (flow, hour), outcomes in (figures or {}).items():
            self.put(flow, hour, outcomes)

    def put(self, flow_id: str, hour: datetime, outcomes: Mapping[str, int]) -> None:
        """Set all counts of one hour of a flow."""
        self._hours.setdefault(flow_id, {})[to_milliseconds(hour)] = dict(outcomes)

    def correct(self, flow_id: str, hour: datetime, outcome: str, count: int) -> None:
        """Set one count."""
        self._hours.setdefault(flow_id, {}).setdefault(to_milliseconds(hour), {})[outcome] = count

    def rename(self, old: str, new: str, *, flow_id: str | None = None, since: datetime | None = None) -> None:
        """Move an outcome's counts to a new name, from ``since`` on (None: all), in one flow or in all."""
        for outcomes in self._hours_of(flow_id, since):
            if old in outcomes:
                outcomes[new] = outcomes.pop(old) + outcomes.get(new, 0)

    def rename_by_id(self, outcome_id: str, name: str) -> None:
        """Give an outcome another name; its id and its counts stay."""
        self._names[outcome_id] = name

    def outcomes(self, at: int) -> Sequence[Flow]:  # noqa: ARG002 - of the protocol
        """Return every outcome that has a count or was renamed."""
        ids = dict.fromkeys(
            name for hours in self._hours.values() for figures in hours.values() for name in figures
        )
        return [Flow(each, self._names.get(each, each)) for each in [*ids, *(self._names.keys() - ids)]]

    def withdraw(self, outcome: str, *, flow_id: str | None = None, since: datetime | None = None) -> None:
        """Remove an outcome's counts from ``since`` on (None: all), in one flow or in all."""
        for outcomes in self._hours_of(flow_id, since):
            outcomes.pop(outcome, None)

    def clear(self) -> None:
        """Remove every count; the flows stay."""
        for hours in self._hours.values():
            hours.clear()

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in the order of their first mention; a flow's name is its id."""
        return [Flow(flow, flow) for flow in self._hours]

    def snapshot(self) -> StaticCentre:
        """Return a copy that later changes do not affect."""
        copy = StaticCentre(flows=tuple(self._hours))
        copy._settle = self._settle
        copy._names = dict(self._names)
        for flow, hours in self._hours.items():
            copy._hours[flow] = {hour: dict(outcomes) for hour, outcomes in hours.items()}
        return copy

    def is_final(self, end: int, at: int) -> bool:  # noqa: ARG002 - of the protocol
        """Return False: a test may change any figure."""
        return False

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts of [start, end) as visible at ``at``; see :class:`Centre`."""
        counts: dict[str, int] = {}
        for run in self._runs(flow_id, start, end, at):
            counts[run.outcome_id] = counts.get(run.outcome_id, 0) + run.after - run.first
        return [(name, self._names.get(name, name), count) for name, count in counts.items()]

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records of [start, end) as visible at ``at``; see :class:`Centre`."""
        return [run for run in self._runs(flow_id, start, end, at) if run.first < run.after]

    def _runs(self, flow_id: str, start: int, end: int, at: int) -> Iterator[RecordRun]:
        """Yield a run for each outcome that an hour reports, zeros included."""
        end = min(end, at - self._settle)
        for hour, outcomes in sorted(self._hours.get(flow_id, {}).items()):
            low, high = max(start, hour) - hour, min(end, hour + HOUR) - hour
            if low < high:
                for name, count in outcomes.items():
                    first, after = count * low // HOUR, count * high // HOUR
                    yield RecordRun(name, KINDS.get(name, "other"), hour // HOUR, first, after)

    def _hours_of(self, flow_id: str | None, since: datetime | None) -> list[dict[str, int]]:
        first = None if since is None else to_milliseconds(since)
        return [
            outcomes
            for flow, hours in self._hours.items()
            if flow_id in (None, flow)
            for hour, outcomes in hours.items()
            if first is None or hour >= first
        ]

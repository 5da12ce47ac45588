"""Contact centres of which a client sees a part, or whose past figures a nightly pipeline corrects."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from service.simulator.centre import Centre, Flow, OutcomeCount, RecordRun
from service.simulator.instants import DAY, HOUR

PIPELINE_HOUR = 3 * HOUR
"""When in a UTC day the pipeline runs."""


class RestrictedCentre:
    """What a client's role sees of a centre that keeps its records for a while.

    Args:
        centre: the whole centre.
        kept: for how many milliseconds a record is kept; None for ever. The day at the limit is partial.
        hidden: flows outside the role's divisions: they are listed, and have no figures.
    """

    def __init__(self, centre: Centre, kept: int | None, hidden: frozenset[str]) -> None:
        self._centre = centre
        self._kept = kept
        self._hidden = hidden

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in a stable order."""
        return self._centre.flows()

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Return every outcome with its name at this instant."""
        return self._centre.outcomes(at)

    def snapshot(self) -> Centre:
        """Return a copy that later changes do not affect."""
        return RestrictedCentre(self._centre.snapshot(), self._kept, self._hidden)

    def is_final(self, end: int, at: int) -> bool:
        """Return whether the figures before ``end`` can no longer change; none is final that expires."""
        return self._kept is None and self._centre.is_final(end, at)

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts of the records that are kept at ``at``; see :class:`Centre`."""
        start = self._first_kept(start, at)
        if flow_id in self._hidden or start >= end:
            return []
        return self._centre.count_outcomes(flow_id, start, end, at)

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records that are kept at ``at``; see :class:`Centre`."""
        start = self._first_kept(start, at)
        if flow_id in self._hidden or start >= end:
            return []
        return self._centre.record_runs(flow_id, start, end, at)

    def _first_kept(self, start: int, at: int) -> int:
        return start if self._kept is None else max(start, at - self._kept)


class NightlyCentre:
    """A centre whose pipeline, each night, adds records to days that ended 48 or 72 hours ago.

    The product's help says that it works on data from 48 hours on, often from three days. Here two thirds of the
    flows' days get their records after three days.

    Args:
        centre: the figures without corrections.
    """

    def __init__(self, centre: Centre) -> None:
        self._centre = centre

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in a stable order."""
        return self._centre.flows()

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Return every outcome with its name at this instant."""
        return self._centre.outcomes(at)

    def snapshot(self) -> Centre:
        """Return a copy that later changes do not affect."""
        return NightlyCentre(self._centre.snapshot())

    def is_final(self, end: int, at: int) -> bool:
        """Return whether the pipeline has run on everything before ``end``."""
        return end <= at - 5 * DAY and self._centre.is_final(end, at)

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts with the corrections that are visible at ``at``; see :class:`Centre`."""
        counts = self._centre.count_outcomes(flow_id, start, end, at)
        for run in self._corrections(flow_id, start, end, at):
            place = next((place for place, each in enumerate(counts) if each[0] == run.outcome_id), None)
            if place is None:
                day = run.origin // -2 * DAY
                of_day = self._centre.count_outcomes(flow_id, day, day + DAY, at)
                counts.append(next((*each[:2], run.after) for each in of_day if each[0] == run.outcome_id))
            else:
                number, name, count = counts[place]
                counts[place] = number, name, count + run.after
        return counts

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records with the corrections that are visible at ``at``; see :class:`Centre`."""
        runs = self._centre.record_runs(flow_id, start, end, at)
        return runs + self._corrections(flow_id, start, end, at)

    def _corrections(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return what the pipeline has added at the noons of [start, end): records of the day's first outcome."""
        corrections = []
        for day in range(start // DAY, (end - 1) // DAY + 1):
            if start <= day * DAY + DAY // 2 < end and (more := self.correction(flow_id, day, at)):
                of_day = self._centre.record_runs(flow_id, day * DAY, (day + 1) * DAY, at)
                corrections += [run._replace(origin=-2 * day, first=0, after=more) for run in of_day[:1]]
        return corrections

    def correction(self, flow_id: str, day: int, at: int) -> int:
        """Return the records that the pipeline has added by ``at`` at noon of a day, counted from 1970."""
        digest = blake2b(f"{flow_id}:{day}".encode(), digest_size=2).digest()
        nights = 2 if digest[0] % 3 == 0 else 3
        return 1 + digest[1] % 5 if at >= (day + 1 + nights) * DAY + PIPELINE_HOUR else 0

"""A generated contact centre: its figures are computed from a seed and the clock; none is stored.

An outcome's count of a day is a hash of (seed, flow, outcome, day). A cumulative profile distributes it over the
day, and an interval gets ``floor(n * to) - floor(n * from)`` records. So the parts of any interval add up to it
exactly: hours to days and days to months, in every time zone.

A record becomes visible 5 to 45 minutes after it happened, depending on its flow; a few, the corrections, become
visible a day later.
"""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from itertools import cycle
from operator import sub
from typing import NamedTuple, Protocol, TypeAlias

from service.simulator.instants import DAY, HOUR, MINUTE, to_datetime
from service.simulator.record_traits import KINDS, Kind
from service.simulator.sample_names import CAMPAIGNS, COMMON_OUTCOMES, OUTCOMES, flow_name

OutcomeCount: TypeAlias = tuple[str, str, int]
"""An outcome's id, its name at the time, and its count."""

CORRECTION_DELAY = DAY
"""How long after it happened a correction becomes visible, in milliseconds."""

_ONE_BITS = 20
_ONE = 1 << _ONE_BITS  # a share of one: shares are whole numbers, so that parts add up exactly
_CACHED_DAYS = 20_000  # about 20 MB
_WEEKDAYS = (115, 105, 100, 100, 95, 45, 25)
_SHAPES = (
    (0, 0, 0, 0, 0, 0, 1, 4, 9, 12, 12, 10, 8, 9, 11, 11, 9, 6, 3, 1, 0, 0, 0, 0),
    (2, 1, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 5, 5, 6, 6, 6, 6, 5, 4, 3, 3, 2, 2),
    (1, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 3, 3, 4, 5, 7, 9, 10, 9, 6, 3, 2),
)
_PROFILE_VARIANTS = 8


class Flow(NamedTuple):
    """An id and a name, of an Architect flow or of a flow outcome."""

    id: str
    name: str


class RecordRun(NamedTuple):
    """Successive records of one outcome of a flow.

    Attributes:
        outcome_id: the outcome's id.
        kind: what the outcome stands for.
        origin: where the numbers begin: a number of the day, or of another source of records.
        first: the first record's number.
        after: the number after the last record's.
    """

    outcome_id: str
    kind: Kind
    origin: int
    first: int
    after: int


class Centre(Protocol):
    """A contact centre, as the dialects read it. Instants are milliseconds since 1970, UTC."""

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in a stable order."""

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Return every outcome with its id and its name at this instant."""

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts of the records that happened in [start, end) and were visible at ``at``.

        An outcome without records is absent, or present with a reported zero. An outcome renamed within the
        interval is present under each of its names.
        """

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records that :meth:`count_outcomes` counts; their numbers decide their traits."""

    def snapshot(self) -> Centre:
        """Return the centre's current state, unaffected by later changes."""

    def is_final(self, end: int, at: int) -> bool:
        """Return whether the figures before ``end`` can no longer change after ``at``."""


@dataclass(frozen=True, slots=True)
class _Campaign:
    """An outcome with a date in its name.

    Attributes:
        theme: the name without the date.
        phase: days since 1970 at which a round begins, modulo ``period``.
        period: days per round; each round has a new name.
        active: days of each round in which the outcome is reported.
    """

    theme: str
    phase: int
    period: int
    active: int

    def name(self, at: int) -> str:
        """Return the name at an instant, whether the outcome is active or not."""
        round_number = (at - 10 * HOUR - self.phase * DAY) // (self.period * DAY)
        return _campaign_name(self.theme, (round_number * self.period + self.phase) * DAY + 10 * HOUR)

    def segments(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """Return the intervals of [start, end) in which the outcome is active, each with its name."""
        active = []
        round_number = (start // DAY - self.phase) // self.period - 1  # a round ends at 10:00 of its last day
        while (began := (round_number * self.period + self.phase) * DAY + 10 * HOUR) < end:
            low, high = max(start, began), min(end, began + self.active * DAY)
            if low < high:
                active.append((low, high, _campaign_name(self.theme, began)))
            round_number += 1
        return active


@dataclass(frozen=True, slots=True)
class _Outcome:
    id: str
    name: str
    kind: Kind
    salt: int
    campaign: _Campaign | None


@dataclass(frozen=True, slots=True)
class _FlowModel:
    """A flow and the parameters of its figures."""

    flow: Flow
    number: int
    salt: bytes
    settle: int
    shape: int
    outcomes: tuple[_Outcome, ...]
    bases: tuple[int, ...]


class _Day(NamedTuple):
    """A flow's figures of a UTC day.

    Attributes:
        prompt: counts by outcome, without corrections.
        late: counts of the corrections, by outcome.
        total: counts by outcome, with corrections.
        profile: cumulative share at each hour's edge, in units of 1 / ``_ONE``.
    """

    prompt: tuple[int, ...]
    late: tuple[int, ...]
    total: tuple[int, ...]
    profile: tuple[int, ...]


class GeneratedCentre:
    """A realistic contact centre of ``flows`` flows with ``outcomes`` outcomes each, determined by ``seed``."""

    def __init__(self, seed: int, flows: int = 12, outcomes: int = 5) -> None:
        self._models = [_flow_model(seed, number, outcomes) for number in range(flows)]
        self._by_id = {model.flow.id: model for model in self._models}
        self._days: dict[tuple[int, int], _Day] = {}

    def flows(self) -> Sequence[Flow]:
        """Return every flow, in a stable order."""
        return [model.flow for model in self._models]

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Return every outcome of every flow; a campaign has the name of its latest round."""
        return [
            Flow(outcome.id, outcome.name if outcome.campaign is None else outcome.campaign.name(at))
            for model in self._models
            for outcome in model.outcomes
        ]

    def snapshot(self) -> GeneratedCentre:
        """Return itself: its figures change by the clock alone."""
        return self

    def is_final(self, end: int, at: int) -> bool:
        """Return whether the corrections are visible."""
        return end <= at - CORRECTION_DELAY

    def count_outcomes(self, flow_id: str, start: int, end: int, at: int) -> list[OutcomeCount]:
        """Return the counts of [start, end) as visible at ``at``; see :class:`Centre`."""
        model = self._by_id.get(flow_id)
        if model is None:
            return []
        prompt_end = min(end, at - model.settle)
        if prompt_end <= start:
            return []
        counts = self._counts(model, start, prompt_end, at - CORRECTION_DELAY)
        reported: list[OutcomeCount] = []
        for index, outcome in enumerate(model.outcomes):
            if outcome.campaign is None:
                count = counts[index]
                if count or _reports_zero(outcome.salt, start):
                    reported.append((outcome.id, outcome.name, count))
                continue
            for low, high, name in outcome.campaign.segments(start, prompt_end):
                complete = low == start and high == prompt_end
                count = (counts if complete else self._counts(model, low, high, at - CORRECTION_DELAY))[index]
                if count or _reports_zero(outcome.salt, low):
                    reported.append((outcome.id, name, count))
        return reported

    def record_runs(self, flow_id: str, start: int, end: int, at: int) -> list[RecordRun]:
        """Return the records of [start, end) as visible at ``at``; see :class:`Centre`."""
        model = self._by_id.get(flow_id)
        if model is None:
            return []
        end, late_end = min(end, at - model.settle), at - CORRECTION_DELAY
        if end <= start:
            return []
        plain = [(index, each) for index, each in enumerate(model.outcomes) if each.campaign is None]
        runs = self._runs(model, plain, start, end, late_end)
        for index, outcome in enumerate(model.outcomes):
            if outcome.campaign is not None:
                for low, high, _ in outcome.campaign.segments(start, end):
                    runs += self._runs(model, [(index, outcome)], low, high, late_end)
        return runs

    def _runs(
        self,
        model: _FlowModel,
        outcomes: Sequence[tuple[int, _Outcome]],
        start: int,
        end: int,
        late_end: int,
    ) -> list[RecordRun]:
        """Return the records of some outcomes in [start, end), day by day; the late ones are numbered apart."""
        runs = []
        for day in range(start // DAY, (end - 1) // DAY + 1):
            figures = self._day(model, day)
            midnight = day * DAY
            low = _share(figures.profile, start - midnight)
            high = _share(figures.profile, end - midnight)
            late = max(low, min(high, _share(figures.profile, late_end - midnight)))
            for index, outcome in outcomes:
                prompt, tardy = figures.prompt[index], figures.late[index]
                first, after = prompt * low >> _ONE_BITS, prompt * high >> _ONE_BITS
                if first < after:
                    runs.append(RecordRun(outcome.id, outcome.kind, 2 * day, first, after))
                first, after = tardy * low >> _ONE_BITS, tardy * late >> _ONE_BITS
                if first < after:
                    runs.append(RecordRun(outcome.id, outcome.kind, 2 * day + 1, first, after))
        return runs

    def _counts(self, model: _FlowModel, start: int, end: int, late_end: int) -> Sequence[int]:
        """Return counts by outcome of [start, end); of late records only those before ``late_end``."""
        counts: Sequence[int] = ()
        for day in range(start // DAY, (end - 1) // DAY + 1):
            figures = self._day(model, day)
            midnight = day * DAY
            if start <= midnight and midnight + DAY <= end and midnight + DAY <= late_end:
                more: Sequence[int] = figures.total
            else:
                low = _share(figures.profile, start - midnight)
                high = _share(figures.profile, end - midnight)
                late = max(low, min(high, _share(figures.profile, late_end - midnight)))
                more = [
                    (prompt * high >> _ONE_BITS)
                    - (prompt * low >> _ONE_BITS)
                    + (tardy * late >> _ONE_BITS)
                    - (tardy * low >> _ONE_BITS)
                    for prompt, tardy in zip(figures.prompt, figures.late, strict=True)
                ]
            counts = [one + other for one, other in zip(counts, more, strict=True)] if counts else more
        return counts

    def _day(self, model: _FlowModel, day: int) -> _Day:
        key = (model.number, day)
        figures = self._days.get(key)
        if figures is None:
            if len(self._days) >= _CACHED_DAYS:
                self._days.clear()
            figures = self._days[key] = _generate_day(model, day)
        return figures


def _generate_day(model: _FlowModel, day: int) -> _Day:
    """Generate a flow's UTC day from a hash of flow and day."""
    noise = blake2b(model.salt + day.to_bytes(8, "big", signed=True), digest_size=64).digest()
    weekday = _WEEKDAYS[(day + 3) % 7]
    total = tuple(base * weekday * (64 + lane) // 19_200 for base, lane in zip(model.bases, cycle(noise[:31])))
    late = tuple(
        count * (lane >> 3) // 512 + 1 if count and not lane & 7 else 0
        for count, lane in zip(total, cycle(noise[31:62]))
    )
    prompt = tuple(map(sub, total, late))
    return _Day(prompt, late, total, _profile(model.shape, noise[63] % _PROFILE_VARIANTS))


def _reports_zero(salt: int, start: int) -> bool:
    """Return whether a zero of the interval from ``start`` is reported; otherwise the outcome is absent."""
    return (salt ^ (start // MINUTE) * 2_654_435_761) >> 9 & 3 == 0


def _share(profile: tuple[int, ...], position: int) -> int:
    """Return the cumulative share ``position`` milliseconds into a day, in units of 1 / ``_ONE``."""
    if position <= 0:
        return 0
    if position >= DAY:
        return _ONE
    hour, rest = divmod(position, HOUR)
    low = profile[hour]
    return low + (profile[hour + 1] - low) * rest // HOUR


@cache
def _campaign_name(theme: str, began: int) -> str:
    return f"{theme} {to_datetime(began):%Y-%m-%d}"


@cache
def _profile(shape: int, variant: int) -> tuple[int, ...]:
    """Return the cumulative share at each of a day's 25 hour edges; ``variant`` changes it slightly."""
    weights = [
        weight * (9 + blake2b(bytes((shape, variant, hour)), digest_size=1).digest()[0] % 6)
        for hour, weight in enumerate(_SHAPES[shape])
    ]
    total = sum(weights)
    return tuple(sum(weights[:hour]) * _ONE // total for hour in range(25))


def _flow_model(seed: int, number: int, outcomes: int) -> _FlowModel:
    """Generate a flow and its outcomes from a hash of seed and number."""
    source = blake2b(f"{seed}:{number}".encode(), digest_size=64).digest()
    flow = Flow(str(uuid.UUID(bytes=source[:16], version=4)), flow_name(number))
    volume = (6, 25, 80, 240, 700, 1800)[bisect_right((30, 80, 140, 200, 240), source[16])]
    generated, bases = [], []
    for index, name in enumerate(_outcome_names(source, outcomes)):
        salt = blake2b(source + name.encode() + bytes((index % 256,)), digest_size=16).digest()
        campaign = None
        if len(COMMON_OUTCOMES) <= outcomes == index + 1 and source[17] % 3 in (0, 1):
            period = 40 + source[18] % 30
            # A third of the flows have a campaign that is renamed, a third one that is also absent for a while.
            active = period if source[17] % 3 == 0 else period * 2 // 3
            campaign = _Campaign(CAMPAIGNS[source[19] % len(CAMPAIGNS)], source[20] % period, period, active)
        bases.append(max(2, volume * 3 // (index + 3) * (40 + salt[0] % 60) // 100))
        identity = str(uuid.UUID(bytes=salt, version=4))
        generated.append(
            _Outcome(identity, name, KINDS.get(name, "other"), int.from_bytes(salt[:6], "big"), campaign)
        )
    return _FlowModel(
        flow=flow,
        number=number,
        salt=source[:32],
        settle=(5 + source[21] % 41) * MINUTE,
        shape=source[22] % len(_SHAPES),
        outcomes=tuple(generated),
        bases=tuple(bases),
    )


def _outcome_names(source: bytes, outcomes: int) -> list[str]:
    """Return different names for a flow's outcomes."""
    further = [OUTCOMES[(source[23] + step * 7) % len(OUTCOMES)] for step in range(len(OUTCOMES))]
    names = list(dict.fromkeys([*COMMON_OUTCOMES, *further]))
    names += [f"step {number:03d}" for number in range(len(names), outcomes)]
    return names[:outcomes]

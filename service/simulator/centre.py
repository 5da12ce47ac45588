"""A contact centre that never was: its figures follow from a seed and the clock, and are stored nowhere.

A day's figure of an outcome is a hash of (seed, flow, outcome, day). Where in the day its records happened is a
cumulative profile, and a stretch gets ``floor(n * to) - floor(n * from)`` of them: the parts of any cut add up to
the whole, exactly, hours to days, days to months, in every time zone.

A record is seen a while after it happened (5 to 45 minutes, by flow), and a few of them a day later: corrections.
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

from service.simulator.instants import DAY, HOUR, MINUTE, moment
from service.simulator.names import CAMPAIGNS, COMMON_OUTCOMES, OUTCOMES, flow_name

Tally: TypeAlias = tuple[str, str, int]
"""An outcome's id, the name it was reported under, and its count."""

LATE = DAY
"""How long after it happened a correction is seen, in milliseconds."""

_UNIT = 20
_WHOLE = 1 << _UNIT
_WEEKDAYS = (115, 105, 100, 100, 95, 45, 25)
_SHAPES = (
    (0, 0, 0, 0, 0, 0, 1, 4, 9, 12, 12, 10, 8, 9, 11, 11, 9, 6, 3, 1, 0, 0, 0, 0),
    (2, 1, 1, 1, 1, 1, 2, 3, 5, 6, 6, 6, 5, 5, 6, 6, 6, 6, 5, 4, 3, 3, 2, 2),
    (1, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 3, 3, 4, 5, 7, 9, 10, 9, 6, 3, 2),
)
_SWAYS = 8


class Flow(NamedTuple):
    """An Architect flow: a UUID and a name."""

    id: str
    name: str


class Centre(Protocol):
    """What a dialect of the API may ask of a contact centre. Instants are milliseconds since 1970, UTC."""

    def flows(self) -> Sequence[Flow]:
        """Every flow, in a lasting order."""

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Every outcome, by its id and the name that it has at this instant, whatever it was called before."""

    def tally(self, flow_id: str, start: int, end: int, at: int) -> list[Tally]:
        """What was reported of the records that happened in [start, end) and were visible at ``at``.

        An outcome that was silent is absent; a count of zero is one that was reported. An outcome renamed within
        the stretch stands there under each of its names.
        """

    def snapshot(self) -> Centre:
        """The centre as it is now, unmoved by later changes."""

    def final(self, end: int, at: int) -> bool:
        """Whether nothing that happened before ``end`` can look any different after ``at``."""


@dataclass(frozen=True, slots=True)
class _Dated:
    """A campaign: each turn of ``period`` days it goes by a new name, and only for ``alive`` days of them."""

    theme: str
    phase: int
    period: int
    alive: int

    def name(self, at: int) -> str:
        """What it is called at an instant, alive or not."""
        turn = (at - 10 * HOUR - self.phase * DAY) // (self.period * DAY)
        return _dated_name(self.theme, (turn * self.period + self.phase) * DAY + 10 * HOUR)

    def segments(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """The stretches of [start, end) in which it was alive, each with its name."""
        found = []
        turn = (start // DAY - self.phase) // self.period - 1  # it ends at ten in the morning of its last day
        while (begun := (turn * self.period + self.phase) * DAY + 10 * HOUR) < end:
            low, high = max(start, begun), min(end, begun + self.alive * DAY)
            if low < high:
                found.append((low, high, _dated_name(self.theme, begun)))
            turn += 1
        return found


@dataclass(frozen=True, slots=True)
class _Outcome:
    id: str
    name: str
    salt: int
    dated: _Dated | None


@dataclass(frozen=True, slots=True)
class _Workings:
    """A flow with everything its figures depend on."""

    flow: Flow
    number: int
    salt: bytes
    settle: int
    shape: int
    outcomes: tuple[_Outcome, ...]
    bases: tuple[int, ...]


class _Day(NamedTuple):
    """A flow's UTC day: counts by outcome of what is seen soon, of what is seen late, and the day's profile."""

    prompt: tuple[int, ...]
    late: tuple[int, ...]
    whole: tuple[int, ...]
    profile: tuple[int, ...]


class GeneratedCentre:
    """A believable contact centre of ``flows`` flows with ``outcomes`` outcomes each, wholly given by ``seed``."""

    def __init__(self, seed: int, flows: int = 12, outcomes: int = 5) -> None:
        self._seed = seed
        self._works = [_workings(seed, number, outcomes) for number in range(flows)]
        self._by_id = {works.flow.id: works for works in self._works}
        self._days: dict[tuple[int, int], _Day] = {}

    def flows(self) -> Sequence[Flow]:
        """Every flow, in a lasting order."""
        return [works.flow for works in self._works]

    def outcomes(self, at: int) -> Sequence[Flow]:
        """Every outcome of every flow; a campaign goes by the name of its last turn."""
        return [
            Flow(outcome.id, outcome.name if outcome.dated is None else outcome.dated.name(at))
            for works in self._works
            for outcome in works.outcomes
        ]

    def snapshot(self) -> GeneratedCentre:
        """Itself: its past does not change but by the clock."""
        return self

    def final(self, end: int, at: int) -> bool:
        """Once the corrections are in."""
        return end <= at - LATE

    def tally(self, flow_id: str, start: int, end: int, at: int) -> list[Tally]:
        """What was reported in [start, end) as visible at ``at``; see :class:`Centre`."""
        works = self._by_id.get(flow_id)
        if works is None:
            return []
        prompt_end = min(end, at - works.settle)
        if prompt_end <= start:
            return []
        counts = self._counts(works, start, prompt_end, at - LATE)
        found: list[Tally] = []
        for index, outcome in enumerate(works.outcomes):
            if outcome.dated is None:
                count = counts[index]
                if count or _speaks_of_zero(outcome.salt, start):
                    found.append((outcome.id, outcome.name, count))
                continue
            for low, high, name in outcome.dated.segments(start, prompt_end):
                whole = low == start and high == prompt_end
                count = (counts if whole else self._counts(works, low, high, at - LATE))[index]
                if count or _speaks_of_zero(outcome.salt, low):
                    found.append((outcome.id, name, count))
        return found

    def _counts(self, works: _Workings, start: int, end: int, late_end: int) -> Sequence[int]:
        """Counts by outcome of [start, end), of late records only those before ``late_end``."""
        counts: Sequence[int] = ()
        for day in range(start // DAY, (end - 1) // DAY + 1):
            figures = self._day(works, day)
            midnight = day * DAY
            if start <= midnight and midnight + DAY <= end and midnight + DAY <= late_end:
                more: Sequence[int] = figures.whole
            else:
                low = _share(figures.profile, start - midnight)
                high = _share(figures.profile, end - midnight)
                late = max(low, min(high, _share(figures.profile, late_end - midnight)))
                more = [
                    (prompt * high >> _UNIT)
                    - (prompt * low >> _UNIT)
                    + (tardy * late >> _UNIT)
                    - (tardy * low >> _UNIT)
                    for prompt, tardy in zip(figures.prompt, figures.late, strict=True)
                ]
            counts = [one + other for one, other in zip(counts, more, strict=True)] if counts else more
        return counts

    def _day(self, works: _Workings, day: int) -> _Day:
        key = (works.number, day)
        found = self._days.get(key)
        if found is None:
            if len(self._days) >= 20_000:  # noqa: PLR2004 - some 20 MB
                self._days.clear()
            found = self._days[key] = _figures_of(works, day)
        return found


def _figures_of(works: _Workings, day: int) -> _Day:
    """A UTC day of a flow, from the hash of the two."""
    noise = blake2b(works.salt + day.to_bytes(8, "big", signed=True), digest_size=64).digest()
    weekday = _WEEKDAYS[(day + 3) % 7]
    whole = tuple(base * weekday * (64 + lane) // 19_200 for base, lane in zip(works.bases, cycle(noise[:31])))
    late = tuple(
        count * (lane >> 3) // 512 + 1 if count and not lane & 7 else 0
        for count, lane in zip(whole, cycle(noise[31:62]))
    )
    prompt = tuple(map(sub, whole, late))
    return _Day(prompt, late, whole, _profile(works.shape, noise[63] % _SWAYS))


def _speaks_of_zero(salt: int, start: int) -> bool:
    """Whether a count of zero from this start is reported; else the outcome is silent."""
    return (salt ^ (start // MINUTE) * 2_654_435_761) >> 9 & 3 == 0


def _share(profile: tuple[int, ...], position: int) -> int:
    """How much of a day has passed by the work done, at ``position`` milliseconds into it, in units of 2**-20."""
    if position <= 0:
        return 0
    if position >= DAY:
        return _WHOLE
    hour, rest = divmod(position, HOUR)
    low = profile[hour]
    return low + (profile[hour + 1] - low) * rest // HOUR


@cache
def _dated_name(theme: str, begun: int) -> str:
    return f"{theme} {moment(begun):%Y-%m-%d}"


@cache
def _profile(shape: int, sway: int) -> tuple[int, ...]:
    """The cumulative work at each of a day's 25 edges of hours; ``sway`` shifts it a little."""
    weights = [
        weight * (9 + blake2b(bytes((shape, sway, hour)), digest_size=1).digest()[0] % 6)
        for hour, weight in enumerate(_SHAPES[shape])
    ]
    total = sum(weights)
    return tuple(sum(weights[:hour]) * _WHOLE // total for hour in range(25))


def _workings(seed: int, number: int, outcomes: int) -> _Workings:
    """A flow and its outcomes, from the hash of seed and number."""
    source = blake2b(f"{seed}:{number}".encode(), digest_size=64).digest()
    flow = Flow(str(uuid.UUID(bytes=source[:16], version=4)), flow_name(number))
    volume = (6, 25, 80, 240, 700, 1800)[bisect_right((30, 80, 140, 200, 240), source[16])]
    pool = _drawn(source, outcomes)
    found, bases = [], []
    for index, name in enumerate(pool):
        salt = blake2b(source + name.encode() + bytes((index % 256,)), digest_size=16).digest()
        dated = None
        if outcomes > 2 and index == outcomes - 1 and source[17] % 3 < 2:  # noqa: PLR2004
            period = 40 + source[18] % 30
            # A third of the flows have a campaign that is only renamed, a third one that vanishes for a while.
            alive = period if source[17] % 3 == 0 else period * 2 // 3
            dated = _Dated(CAMPAIGNS[source[19] % len(CAMPAIGNS)], source[20] % period, period, alive)
        bases.append(max(2, volume * 3 // (index + 3) * (40 + salt[0] % 60) // 100))
        identity = str(uuid.UUID(bytes=salt, version=4))
        found.append(_Outcome(identity, name, int.from_bytes(salt[:6], "big"), dated))
    return _Workings(
        flow=flow,
        number=number,
        salt=source[:32],
        settle=(5 + source[21] % 41) * MINUTE,
        shape=source[22] % len(_SHAPES),
        outcomes=tuple(found),
        bases=tuple(bases),
    )


def _drawn(source: bytes, outcomes: int) -> list[str]:
    """Names of a flow's outcomes, no two alike."""
    further = [OUTCOMES[(source[23] + step * 7) % len(OUTCOMES)] for step in range(len(OUTCOMES))]
    names = list(dict.fromkeys([*COMMON_OUTCOMES, *further]))
    names += [f"step {number:03d}" for number in range(len(names), outcomes)]
    return names[:outcomes]

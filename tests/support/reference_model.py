"""What the tables hold after a history of scans and aliases, as the contract defines it.

Written to be plainly right, not fast: everything that follows from the history is computed again each time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NamedTuple

from service.model import Span

COUNT_MAX = 2**63 - 1


class Place(NamedTuple):
    """A bucket of a flow."""

    granularity: str
    bucket: Span
    flow: str


class Key(NamedTuple):
    """The key of a figure; ``source`` is the API's name, '' where it is unknown."""

    place: Place
    source: str


@dataclass(frozen=True)
class Value:
    """What a scan reports for a key; a count of None is a rejected one."""

    count: int | None
    percentage: float | None = None


@dataclass(frozen=True)
class Shown:
    """A row of ``flow_outcome``."""

    count: int | None
    percentage: float | None
    share: float | None


Row = tuple[Place, str]


@dataclass(frozen=True)
class CompleteScan:
    """A complete scan; ``inconclusive`` holds the windows with an entry that may be any outcome."""

    granularity: str
    windows: tuple[Span, ...]
    buckets: tuple[Span, ...]
    stream: str
    flows: tuple[str, ...]
    values: Mapping[Key, Value]
    rejected: frozenset[Span]
    inconclusive: frozenset[Span]
    expect_for: timedelta
    cycle: str
    number: int

    def window_of(self, bucket: Span) -> Span:
        """The window of a bucket."""
        return next(window for window in self.windows if window.covers(bucket))

    def requests(self, flow: str) -> bool:
        """Whether it requested the flow."""
        return not self.flows or flow in self.flows


@dataclass
class WindowState:
    """A window: its last stored scan, and the cycle of an empty one that is not accepted."""

    stored: CompleteScan | None = None
    doubted_in: str | None = None


@dataclass
class Reference:
    """The history so far, and what follows from it."""

    figures: dict[Key, tuple[str, Value]] = field(default_factory=dict)
    coverage: dict[tuple[str, Span, tuple[str, ...]], tuple[bool, timedelta]] = field(default_factory=dict)
    windows: dict[tuple[str, str, Span], WindowState] = field(default_factory=dict)
    aliases: dict[tuple[str | None, str], str] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    restated: list[tuple[Place, str, int | None, int | None]] = field(default_factory=list)

    # scans

    def scan(self, scan: CompleteScan) -> set[Span]:
        """Add a scan, and return those of its windows that are doubted."""
        reported = {
            scan.window_of(key.place.bucket) for key, each in scan.values.items() if each.count is not None
        }
        doubted = self._doubted(scan, set(scan.windows) - reported - scan.rejected)
        accepted = [bucket for bucket in scan.buckets if scan.window_of(bucket) not in doubted]
        before, covered = self.counts(), {(place[1], flows) for place, flows in self._scopes(scan.granularity)}
        values = {key: each for key, each in scan.values.items() if not self._superseded(scan, key.place)}
        for key in scan.values:
            if key.source:
                self.names.setdefault((key.place.flow, key.source), self.resolve(key.place.flow, key.source))
        for key, each in values.items():
            self.figures[key] = ("rejected" if each.count is None else "reported", each)
        for key, (state, _) in list(self.figures.items()):
            if (
                key.place.granularity == scan.granularity
                and key.place.bucket in accepted
                and scan.window_of(key.place.bucket) not in scan.inconclusive
                and scan.requests(key.place.flow)
                and not self._superseded(scan, key.place)
                and state in ("reported", "rejected")
                and key not in values
            ):
                self.figures[key] = ("withdrawn", Value(None))
        for bucket in accepted:
            if not self._fully_superseded(scan, bucket):
                where = (scan.granularity, bucket, scan.flows)
                conclusive = (where in self.coverage and self.coverage[where][0]) or scan.window_of(
                    bucket
                ) not in scan.inconclusive
                self.coverage[where] = (conclusive, scan.expect_for)
        after = self.counts()
        for place, name in before.keys() | after.keys():
            old, new = before.get((place, name)), after.get((place, name))
            if old != new and any(
                place.bucket == bucket and (not flows or place.flow in flows) for bucket, flows in covered
            ):
                self.restated.append((place, name, old, new))
        self._mark(scan, doubted, values)
        return doubted

    def _scopes(self, granularity: str) -> Iterable[tuple[tuple[str, Span], tuple[str, ...]]]:
        return [((g, bucket), flows) for g, bucket, flows in self.coverage if g == granularity]

    def _doubted(self, scan: CompleteScan, empty: set[Span]) -> set[Span]:
        return {
            window
            for window in empty
            if self._window(scan, window).doubted_in in (None, scan.cycle)
            and any(
                value.count is not None
                and key.place.granularity == scan.granularity
                and window.covers(key.place.bucket)
                and scan.requests(key.place.flow)
                for key, (_, value) in self.figures.items()
            )
        }

    def _window(self, scan: CompleteScan, window: Span) -> WindowState:
        return self.windows.setdefault((scan.granularity, scan.stream, window), WindowState())

    def _superseded(self, scan: CompleteScan, place: Place) -> bool:
        """Whether a scan with a higher number has covered the place."""
        return any(
            state.stored is not None
            and state.stored.number > scan.number
            and granularity == place.granularity
            and window.covers(place.bucket)
            and state.stored.requests(place.flow)
            for (granularity, _, window), state in self.windows.items()
        )

    def _fully_superseded(self, scan: CompleteScan, bucket: Span) -> bool:
        return any(
            state.stored is not None
            and state.stored.number > scan.number
            and granularity == scan.granularity
            and window.covers(bucket)
            and (not state.stored.flows or (bool(scan.flows) and set(scan.flows) <= set(state.stored.flows)))
            for (granularity, _, window), state in self.windows.items()
        )

    def _mark(self, scan: CompleteScan, doubted: set[Span], values: Mapping[Key, Value]) -> None:
        for (granularity, _, window), state in self.windows.items():
            if granularity == scan.granularity and any(
                each.count is not None
                and window.covers(key.place.bucket)
                and (state.stored is None or state.stored.requests(key.place.flow))
                for key, each in values.items()
            ):
                state.doubted_in = None
        for window in scan.windows:
            state = self._window(scan, window)
            if window in doubted:
                state.doubted_in = state.doubted_in or scan.cycle
            else:
                state.stored, state.doubted_in = replace(scan, values={}), None

    # names

    def next_name(self, flow: str | None, name: str) -> str | None:
        """The next name in a chain, as the flow sees it; a flow of None sees only the org's entries."""
        own = self.aliases.get((flow, name)) if flow is not None else None
        return own if own is not None else self.aliases.get((None, name))

    def resolve(self, flow: str, name: str) -> str:
        """The flow's name after the aliases."""
        while (further := self.next_name(flow, name)) is not None:
            name = further
        return name

    def has_cycle(self) -> bool:
        """Whether a chain is a cycle for some flow."""
        for flow in {flow for flow, _ in self.aliases} | {None}:
            for _, name in self.aliases:
                reached, steps = self.next_name(flow, name), 0
                while reached is not None and steps <= len(self.aliases):
                    reached, steps = self.next_name(flow, reached), steps + 1
                if reached is not None:
                    return True
        return False

    def apply(self) -> bool:
        """Apply the aliases to the stored names, and return whether one changed."""
        before = dict(self.names)
        self.names = {(flow, source): self.resolve(flow, source) for flow, source in self.names}
        return self.names != before

    # rows

    def expected(self) -> set[Key]:
        """The keys of expected nulls."""
        found = set()
        for (granularity, bucket, flows), (conclusive, expect_for) in self.coverage.items():
            for seen, (_, value) in self.figures.items():
                key = Key(Place(granularity, bucket, seen.place.flow), seen.source)
                if (
                    conclusive
                    and value.count is not None
                    and seen.place.granularity == granularity
                    and (not flows or seen.place.flow in flows)
                    and bucket.start - expect_for <= seen.place.bucket.end <= bucket.start
                    and key not in self.figures
                ):
                    found.add(key)
        return found

    def counts(self) -> dict[Row, int | None]:
        """The counts of ``flow_outcome``, without expected nulls."""
        return {row: shown.count for row, shown in self._shown(self.figures).items()}

    def shown(self) -> dict[Row, Shown]:
        """All of ``flow_outcome``."""
        return self._shown({**self.figures, **{key: ("expected", Value(None)) for key in self.expected()}})

    def _shown(self, figures: Mapping[Key, tuple[str, Value]]) -> dict[Row, Shown]:
        places: dict[Place, dict[str, list[tuple[str, Value]]]] = defaultdict(lambda: defaultdict(list))
        for key, figure in figures.items():
            name = self.names[key.place.flow, key.source] if key.source else ""
            places[key.place][name].append(figure)
        return {
            (place, name): shown for place, named in places.items() for name, shown in _fold(named).items() if name
        }


def _fold(named: Mapping[str, list[tuple[str, Value]]]) -> dict[str, Shown]:
    """The rows of one bucket of one flow: figures added by name, and shares of their total."""
    counts: dict[str, int | None] = {}
    percentages: dict[str, float | None] = {}
    total: int | None = 0
    for name, figures in named.items():
        known = [value for _, value in figures if value.count is not None]
        total_count = sum(value.count or 0 for value in known)
        known_sum = not any(state == "rejected" for state, _ in figures) and total_count <= COUNT_MAX
        counts[name] = total_count if known_sum and known else None
        shares = [value.percentage for value in known if value.percentage is not None]
        full = not any(state == "rejected" for state, _ in figures) and len(shares) == len(known) and known
        percentages[name] = math.fsum(shares) if full else None
        total = total + total_count if total is not None and known_sum else None
    return {
        name: Shown(count, percentages[name], float(count) / float(total) if count is not None and total else None)
        for name, count in counts.items()
    }

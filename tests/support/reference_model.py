"""What the tables hold after a history of scans and aliases, as the contract defines it.

Written to be plainly right, not fast: everything that follows from the history is computed again each time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import NamedTuple

from service.model import NO_DIMENSIONS, Span
from tests.support.reference_fold import Shown, Value, durations, fold


class Place(NamedTuple):
    """A bucket of a flow."""

    granularity: str
    bucket: Span
    flow: str


class Key(NamedTuple):
    """The key of a figure; ``source`` is the API's name, '' where it is unknown, ``dimensions`` JSON."""

    place: Place
    source: str
    dimensions: str = NO_DIMENSIONS
    measure: str = "outcomes"

    @property
    def group_by(self) -> tuple[str, ...]:
        """The names of its dimensions."""
        return tuple(sorted(json.loads(self.dimensions)))


Row = tuple[Place, str]
DetailRow = tuple[Place, str, str]


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
    measure: str = "outcomes"
    group_by: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Coverage:
    """What is known of a bucket for some flows: whether absence is conclusive, for a grouping."""

    conclusive: bool
    expect_for: timedelta
    group_by: tuple[str, ...]


@dataclass
class Reference:
    """The history so far, and what follows from it."""

    figures: dict[Key, tuple[str, Value]] = field(default_factory=dict)
    coverage: dict[tuple[str, str, Span, tuple[str, ...]], Coverage] = field(default_factory=dict)
    groupings: list[tuple[CompleteScan, Span]] = field(default_factory=list)
    windows: dict[tuple[str, str, str, Span], WindowState] = field(default_factory=dict)
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
        covered = [
            (bucket, flows)
            for measure, granularity, bucket, flows in self.coverage
            if (measure, granularity) == (scan.measure, scan.granularity)
        ]
        before = self.counts()
        values = {key: each for key, each in scan.values.items() if not self._superseded(scan, key.place)}
        if scan.measure == "outcomes":
            for key in scan.values:
                if key.source:
                    flow = key.place.flow
                    self.names.setdefault((flow, key.source), self.resolve(flow, key.source))
        for key, each in values.items():
            self.figures[key] = ("rejected" if each.count is None else "reported", each)
        self._end_unreported(scan, accepted, values)
        self._cover(scan, accepted)
        after = self.counts()
        for place, name in before.keys() | after.keys():
            old, new = before.get((place, name)), after.get((place, name))
            if old != new and any(
                place.bucket == bucket and (not flows or place.flow in flows) for bucket, flows in covered
            ):
                self.restated.append((place, name, old, new))
        self._mark(scan, doubted, values)
        return doubted

    def _end_unreported(self, scan: CompleteScan, accepted: Sequence[Span], values: Mapping[Key, Value]) -> None:
        """Withdraw what the scan no longer reports; what is grouped otherwise ends."""
        for key, (state, _) in list(self.figures.items()):
            if (
                key.measure != scan.measure
                or key.place.granularity != scan.granularity
                or key.place.bucket not in accepted
                or not scan.requests(key.place.flow)
                or self._superseded(scan, key.place)
                or key in values
            ):
                continue
            if key.group_by != scan.group_by:
                del self.figures[key]
            elif state in ("reported", "rejected") and scan.window_of(key.place.bucket) not in scan.inconclusive:
                self.figures[key] = ("withdrawn", Value(None))

    def _cover(self, scan: CompleteScan, accepted: Sequence[Span]) -> None:
        for bucket in accepted:
            self.groupings.append((scan, bucket))
            if not self._fully_superseded(scan, bucket):
                where = (scan.measure, scan.granularity, bucket, scan.flows)
                former = self.coverage.get(where)
                conclusive = (
                    former is not None and former.conclusive and former.group_by == scan.group_by
                ) or scan.window_of(bucket) not in scan.inconclusive
                self.coverage[where] = Coverage(conclusive, scan.expect_for, scan.group_by)

    def _doubted(self, scan: CompleteScan, empty: set[Span]) -> set[Span]:
        return {
            window
            for window in empty
            if self._window(scan, window).doubted_in in (None, scan.cycle)
            and any(
                value.count is not None
                and key.measure == scan.measure
                and key.place.granularity == scan.granularity
                and window.covers(key.place.bucket)
                and scan.requests(key.place.flow)
                for key, (_, value) in self.figures.items()
            )
        }

    def _window(self, scan: CompleteScan, window: Span) -> WindowState:
        where = (scan.measure, scan.granularity, scan.stream, window)
        return self.windows.setdefault(where, WindowState())

    def _states(self, scan: CompleteScan) -> Iterable[tuple[Span, WindowState]]:
        """The windows of the same measure and granularity."""
        return [
            (window, state)
            for (measure, granularity, _, window), state in self.windows.items()
            if (measure, granularity) == (scan.measure, scan.granularity)
        ]

    def _superseded(self, scan: CompleteScan, place: Place) -> bool:
        """Whether a scan with a higher number has covered the place."""
        return any(
            state.stored is not None
            and state.stored.number > scan.number
            and window.covers(place.bucket)
            and state.stored.requests(place.flow)
            for window, state in self._states(scan)
        )

    def _fully_superseded(self, scan: CompleteScan, bucket: Span) -> bool:
        return any(
            state.stored is not None
            and state.stored.number > scan.number
            and window.covers(bucket)
            and (not state.stored.flows or (bool(scan.flows) and set(scan.flows) <= set(state.stored.flows)))
            for window, state in self._states(scan)
        )

    def _mark(self, scan: CompleteScan, doubted: set[Span], values: Mapping[Key, Value]) -> None:
        for window, state in self._states(scan):
            if any(
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

    def _grouping(self, measure: str, place: Place) -> tuple[str, ...]:
        """The dimensions of the last scan that covered a place."""
        last = max(
            (
                scan
                for scan, bucket in self.groupings
                if (scan.measure, scan.granularity, bucket) == (measure, place.granularity, place.bucket)
                and scan.requests(place.flow)
            ),
            key=lambda scan: scan.number,
        )
        return last.group_by

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
        for (measure, granularity, bucket, flows), coverage in self.coverage.items():
            if not coverage.conclusive:
                continue
            for seen, (_, value) in self.figures.items():
                place = Place(granularity, bucket, seen.place.flow)
                key = seen._replace(place=place)
                if (
                    value.count is not None
                    and seen.measure == measure
                    and seen.place.granularity == granularity
                    and (not flows or seen.place.flow in flows)
                    and bucket.start - coverage.expect_for <= seen.place.bucket.end <= bucket.start
                    and key not in self.figures
                    and coverage.group_by == key.group_by == self._grouping(measure, place)
                ):
                    found.add(key)
        return found

    def all_figures(self, measure: str) -> dict[Key, tuple[str, Value]]:
        """The figures of a measure, with expected nulls."""
        figures = {**self.figures, **{key: ("expected", Value(None)) for key in self.expected()}}
        return {key: each for key, each in figures.items() if key.measure == measure}

    def counts(self) -> dict[Row, int | None]:
        """The counts of ``flow_outcome``, without expected nulls."""
        figures = {key: each for key, each in self.figures.items() if key.measure == "outcomes"}
        return {(place, name): shown.count for (place, name, _), shown in self._shown(figures, _total).items()}

    def shown(self) -> dict[Row, Shown]:
        """All of ``flow_outcome``."""
        rows = self._shown(self.all_figures("outcomes"), _total)
        return {(place, name): shown for (place, name, _), shown in rows.items()}

    def detail(self) -> dict[DetailRow, Shown]:
        """All of ``flow_outcome_detail``."""
        return self._shown(self.all_figures("outcomes"), lambda key: key.dimensions)

    def _shown(
        self, figures: Mapping[Key, tuple[str, Value]], dimensions: Callable[[Key], str]
    ) -> dict[DetailRow, Shown]:
        places: dict[Place, dict[tuple[str, str], list[tuple[str, Value]]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for key, figure in figures.items():
            name = self.names[key.place.flow, key.source] if key.source else ""
            places[key.place][name, dimensions(key)].append(figure)
        return {
            (place, *row): shown for place, rows in places.items() for row, shown in fold(rows).items() if row[0]
        }

    def further(self, measure: str) -> dict[tuple[Place, str, str], tuple[int | None, ...]]:
        """The figures of ``flow_execution`` or ``flow_milestone``, by place, source and dimensions."""
        rows = {}
        for key, (_, value) in self.all_figures(measure).items():
            if key.source:
                duration = durations([value]) if value.count is not None else (None,) * 4
                begun = value.count if key.source == "nFlow" else None
                counts = (value.count, value.executions) if measure == "milestones" else (begun, *duration)
                rows[key.place, key.source, key.dimensions] = counts
        return rows


def _total(_: Key) -> str:
    return NO_DIMENSIONS

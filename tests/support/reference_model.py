"""The plain definition of what the tables say after a history of scans and aliases, from the contract's words.

Nothing here is clever or quick: dictionaries, and everything that is derived is derived anew from all of them.
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
    """What a figure is stored for; ``source`` is the API's name, '' where it cannot be told."""

    place: Place
    source: str


@dataclass(frozen=True)
class Said:
    """What a scan says of a key; a count of None is a refused one."""

    count: int | None
    percentage: float | None = None


@dataclass(frozen=True)
class Shown:
    """What a reader of ``flow_outcome`` sees."""

    count: int | None
    percentage: float | None
    share: float | None


Row = tuple[Place, str]


@dataclass(frozen=True)
class Scanned:
    """A scan that came to its end; ``untold`` holds the windows with an entry that may have been any outcome."""

    granularity: str
    windows: tuple[Span, ...]
    buckets: tuple[Span, ...]
    work: str
    flows: tuple[str, ...]
    said: Mapping[Key, Said]
    rejected: frozenset[Span]
    untold: frozenset[Span]
    expect_for: timedelta
    cycle: str
    began: int

    def window_of(self, bucket: Span) -> Span:
        """The window that a bucket lies in."""
        return next(window for window in self.windows if window.covers(bucket))

    def asks(self, flow: str) -> bool:
        """Whether it asked for the flow."""
        return not self.flows or flow in self.flows


@dataclass
class Read:
    """A window as it stands: its last stored scan, and the cycle of an empty one that is not believed."""

    stored: Scanned | None = None
    doubted_in: str | None = None


@dataclass
class Reference:
    """Everything that was said so far, and what follows from it."""

    figures: dict[Key, tuple[str, Said]] = field(default_factory=dict)
    coverage: dict[tuple[str, Span, tuple[str, ...]], tuple[bool, timedelta]] = field(default_factory=dict)
    windows: dict[tuple[str, str, Span], Read] = field(default_factory=dict)
    aliases: dict[tuple[str | None, str], str] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    restated: list[tuple[Place, str, int | None, int | None]] = field(default_factory=list)

    # scans

    def scan(self, scan: Scanned) -> set[Span]:
        """Take a scan in; the windows of it that are doubted."""
        reported = {scan.window_of(key.place.bucket) for key, said in scan.said.items() if said.count is not None}
        doubted = self._doubted(scan, set(scan.windows) - reported - scan.rejected)
        believed = [bucket for bucket in scan.buckets if scan.window_of(bucket) not in doubted]
        before, covered = self.counts(), {(place[1], flows) for place, flows in self._scopes(scan.granularity)}
        said = {key: each for key, each in scan.said.items() if not self._outdone(scan, key.place)}
        for key in scan.said:
            if key.source:
                self.names.setdefault((key.place.flow, key.source), self.called(key.place.flow, key.source))
        for key, each in said.items():
            self.figures[key] = ("rejected" if each.count is None else "reported", each)
        for key, (state, _) in list(self.figures.items()):
            if (
                key.place.granularity == scan.granularity
                and key.place.bucket in believed
                and scan.window_of(key.place.bucket) not in scan.untold
                and scan.asks(key.place.flow)
                and not self._outdone(scan, key.place)
                and state in ("reported", "rejected")
                and key not in said
            ):
                self.figures[key] = ("withdrawn", Said(None))
        for bucket in believed:
            if not self._wholly_outdone(scan, bucket):
                where = (scan.granularity, bucket, scan.flows)
                told = (where in self.coverage and self.coverage[where][0]) or scan.window_of(
                    bucket
                ) not in scan.untold
                self.coverage[where] = (told, scan.expect_for)
        after = self.counts()
        for place, name in before.keys() | after.keys():
            old, new = before.get((place, name)), after.get((place, name))
            if old != new and any(
                place.bucket == bucket and (not flows or place.flow in flows) for bucket, flows in covered
            ):
                self.restated.append((place, name, old, new))
        self._mark(scan, doubted, said)
        return doubted

    def _scopes(self, granularity: str) -> Iterable[tuple[tuple[str, Span], tuple[str, ...]]]:
        return [((g, bucket), flows) for g, bucket, flows in self.coverage if g == granularity]

    def _doubted(self, scan: Scanned, empty: set[Span]) -> set[Span]:
        return {
            window
            for window in empty
            if self._read(scan, window).doubted_in in (None, scan.cycle)
            and any(
                said.count is not None
                and key.place.granularity == scan.granularity
                and window.covers(key.place.bucket)
                and scan.asks(key.place.flow)
                for key, (_, said) in self.figures.items()
            )
        }

    def _read(self, scan: Scanned, window: Span) -> Read:
        return self.windows.setdefault((scan.granularity, scan.work, window), Read())

    def _outdone(self, scan: Scanned, place: Place) -> bool:
        """Whether a scan begun later has read the place already."""
        return any(
            read.stored is not None
            and read.stored.began > scan.began
            and granularity == place.granularity
            and window.covers(place.bucket)
            and read.stored.asks(place.flow)
            for (granularity, _, window), read in self.windows.items()
        )

    def _wholly_outdone(self, scan: Scanned, bucket: Span) -> bool:
        return any(
            read.stored is not None
            and read.stored.began > scan.began
            and granularity == scan.granularity
            and window.covers(bucket)
            and (not read.stored.flows or (bool(scan.flows) and set(scan.flows) <= set(read.stored.flows)))
            for (granularity, _, window), read in self.windows.items()
        )

    def _mark(self, scan: Scanned, doubted: set[Span], said: Mapping[Key, Said]) -> None:
        for (granularity, _, window), read in self.windows.items():
            if granularity == scan.granularity and any(
                each.count is not None
                and window.covers(key.place.bucket)
                and (read.stored is None or read.stored.asks(key.place.flow))
                for key, each in said.items()
            ):
                read.doubted_in = None
        for window in scan.windows:
            read = self._read(scan, window)
            if window in doubted:
                read.doubted_in = read.doubted_in or scan.cycle
            else:
                read.stored, read.doubted_in = replace(scan, said={}), None

    # names

    def next_name(self, flow: str | None, name: str) -> str | None:
        """One step of a chain as the flow sees it; a flow of None sees the org's entries alone."""
        own = self.aliases.get((flow, name)) if flow is not None else None
        return own if own is not None else self.aliases.get((None, name))

    def called(self, flow: str, name: str) -> str:
        """What the mapping table says the flow's name is called."""
        while (further := self.next_name(flow, name)) is not None:
            name = further
        return name

    def circles(self) -> bool:
        """Whether some chain goes round, as some flow sees it."""
        for flow in {flow for flow, _ in self.aliases} | {None}:
            for _, name in self.aliases:
                reached, steps = self.next_name(flow, name), 0
                while reached is not None and steps <= len(self.aliases):
                    reached, steps = self.next_name(flow, reached), steps + 1
                if reached is not None:
                    return True
        return False

    def apply(self) -> bool:
        """Let the mapping table take hold of what is stored; whether it changed a name."""
        before = dict(self.names)
        self.names = {(flow, source): self.called(flow, source) for flow, source in self.names}
        return self.names != before

    # what a reader sees

    def expected(self) -> set[Key]:
        """The nulls of outcomes that were seen not too long ago and are missing."""
        found = set()
        for (granularity, bucket, flows), (told, expect_for) in self.coverage.items():
            for seen, (_, said) in self.figures.items():
                key = Key(Place(granularity, bucket, seen.place.flow), seen.source)
                if (
                    told
                    and said.count is not None
                    and seen.place.granularity == granularity
                    and (not flows or seen.place.flow in flows)
                    and bucket.start - expect_for <= seen.place.bucket.end <= bucket.start
                    and key not in self.figures
                ):
                    found.add(key)
        return found

    def counts(self) -> dict[Row, int | None]:
        """The counts that a reader sees, without expected nulls."""
        return {row: shown.count for row, shown in self._shown(self.figures).items()}

    def shown(self) -> dict[Row, Shown]:
        """All of ``flow_outcome``."""
        return self._shown({**self.figures, **{key: ("expected", Said(None)) for key in self.expected()}})

    def _shown(self, figures: Mapping[Key, tuple[str, Said]]) -> dict[Row, Shown]:
        places: dict[Place, dict[str, list[tuple[str, Said]]]] = defaultdict(lambda: defaultdict(list))
        for key, figure in figures.items():
            name = self.names[key.place.flow, key.source] if key.source else ""
            places[key.place][name].append(figure)
        return {
            (place, name): shown for place, named in places.items() for name, shown in _fold(named).items() if name
        }


def _fold(named: Mapping[str, list[tuple[str, Said]]]) -> dict[str, Shown]:
    """What one bucket of one flow shows: names added up, and shares of what they come to."""
    counts: dict[str, int | None] = {}
    percentages: dict[str, float | None] = {}
    total: int | None = 0
    for name, figures in named.items():
        known = [said for _, said in figures if said.count is not None]
        whole = sum(said.count or 0 for said in known)
        sound = not any(state == "rejected" for state, _ in figures) and whole <= COUNT_MAX
        counts[name] = whole if sound and known else None
        shares = [said.percentage for said in known if said.percentage is not None]
        full = not any(state == "rejected" for state, _ in figures) and len(shares) == len(known) and known
        percentages[name] = math.fsum(shares) if full else None
        total = total + whole if total is not None and sound else None
    return {
        name: Shown(count, percentages[name], float(count) / float(total) if count is not None and total else None)
        for name, count in counts.items()
    }

"""Scans and their pages: one query's whole answer, walked over a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from service.simulator.buckets import Stretch, TimeGroup, cut
from service.simulator.centre import Centre
from service.simulator.instants import spelled

Order: TypeAlias = Literal["flow", "bucket"]
PercentOf: TypeAlias = Literal["flow", "query"]
Outcomes: TypeAlias = dict[str, dict[str, object]]


class Position(NamedTuple):
    """Where a page begins: the number of a (flow, bucket) in the walk, and how many of its outcomes are done."""

    place: int = 0
    outcome: int = 0


class Slice(NamedTuple):
    """Entries of one page, and where the next one begins; None where nothing is left."""

    entries: list[dict[str, object]]
    after: Position | None


@dataclass(slots=True)
class Scan:
    """A query as it was first asked, with the figures as they then stood.

    Attributes:
        digest: of the query.
        centre: a snapshot.
        at: the instant of the snapshot, in milliseconds since 1970.
        flows: ids, in the walk's order.
        buckets: what the query's span was cut into.
        until: records from here on are ignored; at most the end of the last bucket.
        limit: entries a page.
        timezone: IANA name; where the buckets were cut.
        order: flow after flow, or bucket after bucket.
        percent_of: what percentOfTotal is a share of.
        split: whether a page's last entry is cut in two, its other half beginning the next page.
        tokens: those given out so far, oldest first.
        answered: how many pages were answered.
    """

    digest: str
    centre: Centre
    at: int
    flows: Sequence[str]
    buckets: Sequence[Stretch]
    until: int
    limit: int
    timezone: str
    order: Order = "flow"
    percent_of: PercentOf = "flow"
    split: bool = False
    tokens: list[str] = field(default_factory=list)
    _intervals: list[str] = field(default_factory=list)
    _total: int | None = None

    def __post_init__(self) -> None:
        self._intervals = [f"{spelled(start)}/{spelled(end)}" for start, end in self.buckets]

    @property
    def places(self) -> int:
        """How many (flow, bucket) pairs there are, silent ones included."""
        return len(self.flows) * len(self.buckets)

    @property
    def final(self) -> bool:
        """Whether the same query will be answered the same for ever."""
        return self.centre.final(min(self.buckets[-1][1], self.until), self.at)

    def page(self, position: Position) -> Slice:
        """The entries from a position on, at most ``limit``; the same again whenever it is asked again."""
        entries: list[dict[str, object]] = []
        done = position.outcome
        for place in range(position.place, self.places):
            flow, bucket = self._at(place)
            outcomes = self._outcomes(flow, bucket)
            if not outcomes:
                continue
            if len(entries) == self.limit:
                return Slice(entries, Position(place))
            if done:
                outcomes = dict(list(outcomes.items())[done:])
            elif self.split and len(entries) == self.limit - 1 and len(outcomes) > 1:
                done = len(outcomes) // 2
                outcomes = dict(list(outcomes.items())[:done])
                entries.append(self._entry(flow, bucket, outcomes))
                return Slice(entries, Position(place, done))
            done = 0
            entries.append(self._entry(flow, bucket, outcomes))
        return Slice(entries, None)

    def figures(self) -> Iterator[tuple[str, Stretch, Outcomes]]:
        """The whole answer at once: flow, bucket, outcomes by name."""
        for place in range(self.places):
            flow, bucket = self._at(place)
            if outcomes := self._outcomes(flow, bucket):
                yield flow, self.buckets[bucket], outcomes

    def _at(self, place: int) -> tuple[str, int]:
        if self.order == "flow":
            flow, bucket = divmod(place, len(self.buckets))
        else:
            bucket, flow = divmod(place, len(self.flows))
        return self.flows[flow], bucket

    def _entry(self, flow: str, bucket: int, outcomes: Outcomes) -> dict[str, object]:
        return {
            "group": {"flow-id": flow},
            "interval": self._intervals[bucket],
            "metrics": {"flow-outcomes": outcomes},
        }

    def _outcomes(self, flow: str, bucket: int) -> Outcomes:
        """What a flow reported in a bucket, with shares; two outcomes of one name are one."""
        start, end = self.buckets[bucket]
        end = min(end, self.until)
        if end <= start:
            return {}
        counts: dict[str, int] = {}
        for _, name, count in self.centre.tally(flow, start, end, self.at):
            counts[name] = counts.get(name, 0) + count
        total = sum(counts.values()) if self.percent_of == "flow" else self._whole()
        return {
            name: {"count": count, "percentOfTotal": round(count / total, 4) if total else 0.0}
            for name, count in counts.items()
        }

    def _whole(self) -> int:
        """The total of the whole query."""
        if self._total is None:
            first, last = self.buckets[0][0], min(self.buckets[-1][1], self.until)
            self._total = sum(
                count for flow in self.flows for _, _, count in self.centre.tally(flow, first, last, self.at)
            )
        return self._total


def open_scan(
    centre: Centre,
    *,
    start: int,
    end: int,
    step: TimeGroup,
    timezone: ZoneInfo,
    at: int,
    flows: frozenset[str] | None = None,
    delay: int = 0,
    limit: int = 1,
    digest: str = "",
    order: Order = "flow",
    percent_of: PercentOf = "flow",
    split: bool = False,
) -> Scan:
    """Begin a scan: cut the span, take a snapshot. Instants and ``delay`` are in milliseconds."""
    return Scan(
        digest=digest,
        centre=centre.snapshot(),
        at=at,
        flows=[flow.id for flow in centre.flows() if flows is None or flow.id in flows],
        buckets=cut(start, end, step, timezone),
        until=end - delay,
        limit=limit,
        timezone=timezone.key,
        order=order,
        percent_of=percent_of,
        split=split,
    )

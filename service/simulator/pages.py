"""Scans: the complete result of a query, read page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from service.simulator.buckets import Interval, TimeGroup, split_buckets
from service.simulator.centre import Centre
from service.simulator.instants import format_instant

Order: TypeAlias = Literal["flow", "bucket"]
PercentOf: TypeAlias = Literal["flow", "query"]
Outcomes: TypeAlias = dict[str, dict[str, object]]


class Position(NamedTuple):
    """Where a page begins.

    Attributes:
        pair: index of a (flow, bucket) pair, in the scan's order.
        outcome: how many outcomes of the pair were on the previous page.
    """

    pair: int = 0
    outcome: int = 0


class PageSlice(NamedTuple):
    """Entries of one page and the position of the next page; None after the last page."""

    entries: list[dict[str, object]]
    after: Position | None


@dataclass(slots=True)
class Scan:
    """A query and a snapshot of the figures, taken when its first page was requested.

    Attributes:
        digest: a digest of the query.
        centre: the snapshot.
        at: the instant of the snapshot, in milliseconds since 1970.
        flows: flow ids, in the scan's order.
        buckets: the buckets of the query's span.
        until: records from this instant on are ignored; at most the end of the last bucket.
        limit: entries per page.
        timezone: IANA name of the time zone of the buckets.
        order: flow by flow, or bucket by bucket.
        percent_of: denominator of percentOfTotal.
        split: whether a page's last entry is split in two; the second half begins the next page.
        tokens: the tokens issued so far, oldest first.
    """

    digest: str
    centre: Centre
    at: int
    flows: Sequence[str]
    buckets: Sequence[Interval]
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
        self._intervals = [f"{format_instant(start)}/{format_instant(end)}" for start, end in self.buckets]

    @property
    def pair_count(self) -> int:
        """The number of (flow, bucket) pairs, including those without figures."""
        return len(self.flows) * len(self.buckets)

    @property
    def is_final(self) -> bool:
        """Whether the result of the query can no longer change."""
        return self.centre.is_final(min(self.buckets[-1][1], self.until), self.at)

    def page(self, position: Position) -> PageSlice:
        """Return the entries from a position on, at most ``limit``; every call returns the same."""
        entries: list[dict[str, object]] = []
        done = position.outcome
        for pair in range(position.pair, self.pair_count):
            flow, bucket = self._pair_at(pair)
            outcomes = self._outcomes(flow, bucket)
            if not outcomes:
                continue
            if len(entries) == self.limit:
                return PageSlice(entries, Position(pair))
            if done:
                outcomes = dict(list(outcomes.items())[done:])
            elif self.split and len(entries) == self.limit - 1 and len(outcomes) > 1:
                done = len(outcomes) // 2
                outcomes = dict(list(outcomes.items())[:done])
                entries.append(self._entry(flow, bucket, outcomes))
                return PageSlice(entries, Position(pair, done))
            done = 0
            entries.append(self._entry(flow, bucket, outcomes))
        return PageSlice(entries, None)

    def figures(self) -> Iterator[tuple[str, Interval, Outcomes]]:
        """Yield the complete result: flow, bucket, outcomes by name."""
        for pair in range(self.pair_count):
            flow, bucket = self._pair_at(pair)
            if outcomes := self._outcomes(flow, bucket):
                yield flow, self.buckets[bucket], outcomes

    def _pair_at(self, pair: int) -> tuple[str, int]:
        if self.order == "flow":
            flow, bucket = divmod(pair, len(self.buckets))
        else:
            bucket, flow = divmod(pair, len(self.flows))
        return self.flows[flow], bucket

    def _entry(self, flow: str, bucket: int, outcomes: Outcomes) -> dict[str, object]:
        return {
            "group": {"flow-id": flow},
            "interval": self._intervals[bucket],
            "metrics": {"flow-outcomes": outcomes},
        }

    def _outcomes(self, flow: str, bucket: int) -> Outcomes:
        """Return a flow's counts and shares in a bucket; outcomes with the same name are added up."""
        start, end = self.buckets[bucket]
        end = min(end, self.until)
        if end <= start:
            return {}
        counts: dict[str, int] = {}
        for _, name, count in self.centre.count_outcomes(flow, start, end, self.at):
            counts[name] = counts.get(name, 0) + count
        total = sum(counts.values()) if self.percent_of == "flow" else self._query_total()
        return {
            name: {"count": count, "percentOfTotal": round(count / total, 4) if total else 0.0}
            for name, count in counts.items()
        }

    def _query_total(self) -> int:
        if self._total is None:
            first, last = self.buckets[0][0], min(self.buckets[-1][1], self.until)
            self._total = sum(
                count
                for flow in self.flows
                for _, _, count in self.centre.count_outcomes(flow, first, last, self.at)
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
    """Start a scan: split the span into buckets, take a snapshot. Instants and ``delay`` are in milliseconds."""
    return Scan(
        digest=digest,
        centre=centre.snapshot(),
        at=at,
        flows=[flow.id for flow in centre.flows() if flows is None or flow.id in flows],
        buckets=split_buckets(start, end, step, timezone),
        until=end - delay,
        limit=limit,
        timezone=timezone.key,
        order=order,
        percent_of=percent_of,
        split=split,
    )

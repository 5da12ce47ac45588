"""The size and the width of one org's queries: ``plan.narrowing`` and ``plan.splitting`` with their memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.clock import Clock
from service.errors import ExtractionError
from service.model import Granularity, Query, Scan, SplitHint, Window
from service.plan.buckets import buckets
from service.plan.narrowing import KEEP, Cause, WidthPolicy, cause_of
from service.plan.splitting import front, halve, largest, smaller, split_hint, width
from service.postgres.windows import SplitLedger
from service.telemetry import Emit, Event


class Part(NamedTuple):
    """A query to read, in parts where it is too large or too wide.

    Attributes:
        query: what is to be read.
        limit: the most buckets of the next query in it; None for no limit but those that were learned.
    """

    query: Query
    limit: int | None = None


class Splitter:
    """Decides how large and how wide each query of an org is.

    Args:
        ledger: holds what was learned.
        clock: the process's clock.
        emit: receives the events.
    """

    def __init__(self, ledger: SplitLedger, clock: Clock, emit: Emit) -> None:
        self._ledger = ledger
        self._clock = clock
        self._emit = emit
        self._policies: dict[Granularity, WidthPolicy] | None = None
        self._hints: list[SplitHint] | None = None

    async def policy(self, granularity: Granularity) -> WidthPolicy:
        """The rule for the queries of one granularity, with what earlier cycles learned.

        Raises:
            DatabaseUnavailableError: it could not be read.
        """
        if self._policies is None:
            learned = await self._ledger.widths()
            self._policies = self._policies or {each: WidthPolicy(learned.get(each)) for each in Granularity}
        return self._policies[granularity]

    async def take(self, windows: Sequence[Window], timezone: str, cycle: str, limit: int | None) -> int:
        """How many of these adjacent windows the next scan covers.

        Args:
            windows: those left to extract.
            timezone: of the org.
            cycle: the cycle's id.
            limit: the most buckets, as the same windows were refused before; None for no limit of their own.
        """
        policy = await self.policy(windows[0].granularity)
        if policy.learned is None and limit is None:
            return len(windows)
        widths = [_width(window, timezone) for window in windows]
        return policy.take(widths, cycle, self._clock.now(), limit)

    def width(self, windows: Sequence[Window], timezone: str) -> int:
        """The buckets of these windows."""
        return sum(_width(window, timezone) for window in windows)

    async def is_settled(self, windows: Sequence[Window], timezone: str, cycle: str) -> bool:
        """Whether no wider query is to be tried, so that scans of these windows may run side by side."""
        policy = await self.policy(windows[0].granularity)
        return policy.is_settled(_width(windows[0], timezone), cycle, self._clock.now())

    async def next_query(self, part: Part, scan: Scan, cycle: str) -> tuple[Query, list[Part]]:
        """The query to send next for a part, and what is left of the part after it."""
        query, rest = part.query, list[Part]()
        limit = largest(query, scan.span, await self._known_hints())
        while len(parts := smaller(query, limit)) > 1:
            query, rest = parts[0], [*map(Part, parts[1:]), *rest]
        if len(scan.windows) > 1:  # the scanner took no more windows than one query may cover
            return query, rest
        policy = await self.policy(query.granularity)
        window = width(query) if policy.learned is None else _width(scan.windows[0], query.timezone)
        count = policy.limit(width(query), window, cycle, self._clock.now())
        query, later = front(query, count if part.limit is None else max(1, min(count, part.limit)))
        return query, rest if later is None else [Part(later), *rest]

    async def served(self, query: Query, cycle: str) -> None:
        """Record that a query was read to its end."""
        policy = await self.policy(query.granularity)
        if policy.served(width(query), cycle):
            await self._ledger.note_width(query.granularity, policy.learned)

    async def failed(
        self, query: Query, query_hash: str, error: ExtractionError, scan: Scan, cycle: str
    ) -> list[Part] | None:
        """The parts that replace a query that failed; None where it is not split.

        Where width may be the cause, that is the query itself, of which the next query is a narrower part.
        """
        if cause_of(error) is Cause.SIZE:
            halves = halve(query)
            if halves is not None:
                await self._store_hint(split_hint(query, halves, scan.span), query_hash)
            return None if halves is None else [*map(Part, halves)]
        policy = await self.policy(query.granularity)
        before, buckets_of_query = policy.learned, width(query)
        is_narrowed = policy.failed(buckets_of_query, error, cycle, self._clock.now())
        if policy.learned != before:
            await self._ledger.note_width(query.granularity, policy.learned)
        if not is_narrowed:
            return None
        self._emit(
            Event.QUERY_NARROWED,
            org=query.org,
            window_start=query.span.start,
            window_end=query.span.end,
            query_hash=query_hash,
            granularity=query.granularity.value,
            buckets=buckets_of_query,
            reason=str(error),
        )
        return [Part(query, buckets_of_query - 1)]

    async def _store_hint(self, hint: SplitHint, query_hash: str) -> None:
        await self._ledger.note_hint(query_hash, hint, self._clock.now())
        (await self._known_hints()).append(hint)

    async def _known_hints(self) -> list[SplitHint]:
        if self._hints is None:
            hints = await self._ledger.hints(self._clock.now() - KEEP)
            self._hints = hints if self._hints is None else self._hints
        return self._hints


def _width(window: Window, timezone: str) -> int:
    return len(buckets(window.span, window.granularity, timezone))

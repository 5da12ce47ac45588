"""What the rooms hand to each other: spans, queries, pages, rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from service.errors import NotSettledError

COUNT_MAX = 2**63 - 1
"""The largest count that PostgreSQL's bigint holds."""


class Granularity(StrEnum):
    """The step of a bucket, finest first."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"


class Span(NamedTuple):
    """A half-open stretch of time [start, end); both ends aware, in UTC."""

    start: datetime
    end: datetime

    @property
    def duration(self) -> timedelta:
        """Elapsed time, not wall-clock time."""
        return self.end - self.start

    def covers(self, other: Span) -> bool:
        """Whether the other lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether the two share an instant."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{instant(self.start)}/{instant(self.end)}"


def instant(at: datetime) -> str:
    """ISO 8601 with milliseconds and Z, as both APIs spell an instant."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Query:
    """One paged question to an org's API.

    Attributes:
        org: the org's name in the configuration.
        span: the whole buckets that are wanted.
        granularity: the step of the buckets.
        timezone: IANA name; where days and months begin.
        flows: flow ids asked for; empty is all flows.
        page_size: entries a page.
        metrics_delay: sent to the engine, which then ignores the records of that span before ``asked.end``.
        asked: what goes to the engine as dateFrom and dateTo; ends later than ``span`` where the engine is to
            cut the surplus off by ``metrics_delay``.
    """

    org: str
    span: Span
    granularity: Granularity
    timezone: str
    flows: tuple[str, ...]
    page_size: int
    metrics_delay: timedelta | None
    asked: Span


class SplitHint(NamedTuple):
    """A query that came out too large.

    Attributes:
        granularity: the step of its buckets.
        span: what it asked for.
        by_flow: whether it listed flows.
        half: the size of its larger half: its buckets, for each flow listed.
    """

    granularity: Granularity
    span: Span
    by_flow: bool
    half: int


class Figure(msgspec.Struct, gc=False):
    """What the API said of one outcome: JSON values, not yet judged; all but the count are None where absent.

    A struct, so that a dialect can have its figures decoded straight into what is judged.
    """

    outcome_count: object
    percent_of_total: object = None
    success: object = None
    failure: object = None


class ValidFigure(Figure, gc=False):
    """A count and a share within their bounds, and nothing else: a decoder has seen to it."""

    outcome_count: int
    percent_of_total: float | None = None
    success: None = None
    failure: None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One element of a page, its parts found but not yet judged.

    Attributes:
        flow_id: the JSON value at the flow's place; None where there is none.
        interval: the JSON values of start and end; None where there is none.
        outcomes: figures by the API's own name (or id) of the outcome; None where they have no known shape.
        text: the element as it came, for ``rejected_entry``.
        part: which part of the figures this is, where the API splits them by what was not asked for; the parts of
            one outcome add up. Empty where an entry tells the whole.
    """

    flow_id: object
    interval: tuple[object, object]
    outcomes: Mapping[str, Figure] | None
    text: str
    part: str = ""


class ValidEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry whose every figure is sound, as nearly all are; flow, bucket and names are not judged yet.

    Attributes:
        texts: gives the texts of its page's elements; asked only where this one is refused after all.
        index: which of them is its own.
    """

    flow_id: str
    interval: tuple[object, object]
    outcomes: Mapping[str, ValidFigure]
    texts: Callable[[], Sequence[str]]
    index: int

    def plain(self) -> Entry:
        """The same, to be judged piece by piece."""
        return Entry(self.flow_id, self.interval, self.outcomes, self.texts()[self.index])


@dataclass(frozen=True, slots=True)
class Page:
    """One answer.

    Attributes:
        entries: its elements.
        more: False only where the API said that it was the last.
        date: the response's ``Date``; None where it had no valid one.
    """

    entries: Sequence[Entry | ValidEntry]
    more: bool
    date: datetime | None = None


class FlowBucket(msgspec.Struct, frozen=True, gc=False):
    """One bucket of one flow, as one entry of a page tells of it; the entry's rows share it.

    Attributes:
        flow_id: the flow's id.
        start, end: the bucket, in UTC.
        part: as in ``Entry``.
    """

    flow_id: str
    start: datetime
    end: datetime
    part: str = ""


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """One figure, normalised.

    ``source_key`` is the outcome under the API's own name or id, before any alias; it is empty in a row that
    only marks that the flow's total in this bucket is not known, since an outcome was rejected whose name cannot
    be told. ``outcome_count`` is None just where ``rejected`` is true. Rows of one outcome and bucket that differ
    in their bucket's ``part`` add up in the merge; of those that do not, equal ones count once.
    """

    bucket: FlowBucket
    source_key: str
    outcome_count: int | None
    outcome_percentage: float | None
    rejected: bool
    success: int | None = None
    failure: int | None = None


class Reject(NamedTuple):
    """One outcome, or one whole entry, that was refused.

    Attributes:
        reason: in plain words.
        text: the entry as it came; JSON text, so NUL and lone surrogates stand escaped.
        flow_id, bucket_start, outcome: what of it can be told; None otherwise.
    """

    reason: str
    text: str
    flow_id: str | None
    bucket_start: datetime | None
    outcome: str | None

    @property
    def tellable(self) -> bool:
        """Whether flow, bucket and name are all known: then absence elsewhere can still be believed."""
        return None not in (self.flow_id, self.bucket_start, self.outcome)


@dataclass(frozen=True, slots=True)
class Normalised:
    """The rows and the refused outcomes of one page.

    Attributes:
        rows: those of the entries that had to be judged piece by piece.
        rejects: what was refused.
        shares_fit: whether each share is near its count's part of its own entry's total; where one is not, it may
            still fit another one.
        sound: the entries that need no row object for each figure: their bucket, which has no part, and their
            figures by name.
    """

    rows: list[OutcomeRow]
    rejects: list[Reject]
    shares_fit: bool = False
    sound: list[tuple[FlowBucket, Mapping[str, ValidFigure]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Window:
    """A span that is owed, with what is known of how to ask for it.

    Attributes:
        org: the org's name.
        work: whose window it is in the ledger: ``job:NAME`` for a job's, ``ad hoc`` for all others.
        job: the job's name; None for ad hoc work.
        span: whole buckets at ``granularity``.
        requested: ``hourly``, ``daily``, ``monthly`` or ``auto``, as configured.
        granularity: what it is asked at.
        due_at: the first moment at which it may be asked.
        coarsened: whether the server refused it one step finer; it goes no step further.
    """

    org: str
    work: str
    job: str | None
    span: Span
    requested: str
    granularity: Granularity
    due_at: datetime
    coarsened: bool = False


@dataclass(frozen=True, slots=True)
class Scan:
    """Adjacent windows of one work that are asked for, and stored, together.

    ``queries`` together cover the windows' spans exactly; ``expect_for`` is how long an outcome once seen is
    expected; ``delay`` is how long after its end each window settles.
    """

    windows: tuple[Window, ...]
    queries: tuple[Query, ...]
    expect_for: timedelta
    delay: timedelta = timedelta(0)

    @property
    def org(self) -> str:
        """The org's name."""
        return self.windows[0].org

    @property
    def granularity(self) -> Granularity:
        """The step of all its buckets."""
        return self.windows[0].granularity

    @property
    def span(self) -> Span:
        """From the first window's start to the last one's end."""
        return Span(self.windows[0].span.start, self.windows[-1].span.end)

    def check_settled(self, now: datetime) -> None:
        """See that each window's end plus the delay has passed.

        Args:
            now: the time by the clock that decides.

        Raises:
            NotSettledError: it has not for one of them; it says how many windows before that one have settled.
        """
        for settled, window in enumerate(self.windows):
            settles_at = window.span.end + self.delay
            if settles_at > now:
                raise NotSettledError(
                    f"not settled yet: the API's clock shows {instant(now)}, and the window is due"
                    f" at {instant(settles_at)}",
                    settled=settled,
                    seconds=(settles_at - now).total_seconds(),
                )

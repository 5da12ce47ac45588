"""The values that the rooms pass to each other: spans, queries, pages, rows, windows, scans."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

import msgspec

from service.errors import NotSettledError
from service.measure import NO_DIMENSIONS, Duration, DurationStats, Measure

COUNT_MAX = 2**63 - 1
"""The largest count that fits PostgreSQL's bigint."""

NAME_BYTES_MAX = 512
"""The longest flow id or outcome name that is stored, in bytes of UTF-8."""


class Granularity(StrEnum):
    """The length of a bucket, finest first."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"

    @property
    def bucket_length(self) -> timedelta:
        """The nominal length of a bucket; a month counts as 30 days."""
        return _BUCKET_LENGTHS[self]


_BUCKET_LENGTHS = {
    Granularity.HOURLY: timedelta(hours=1),
    Granularity.DAILY: timedelta(days=1),
    Granularity.MONTHLY: timedelta(days=30),
}


class Span(NamedTuple):
    """A half-open interval [start, end); both ends are aware and in UTC."""

    start: datetime
    end: datetime

    @property
    def duration(self) -> timedelta:
        """Elapsed time, not wall-clock time."""
        return self.end - self.start

    def covers(self, other: Span) -> bool:
        """Whether the other span lies within this one."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Span) -> bool:
        """Whether the two spans share an instant."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return f"{instant(self.start)}/{instant(self.end)}"


def instant(at: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and ``Z``, the form that both APIs use."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Query:
    """One paged query to an org's API.

    Attributes:
        org: the org's name in the configuration.
        span: the buckets to store; it begins and ends on bucket edges.
        granularity: the length of the buckets.
        timezone: IANA name of the zone in which days and months begin.
        flows: ids of the flows to report on; empty means all flows.
        page_size: entries per page, the API's ``limit``.
        metrics_delay: sent to the engine, which then ignores records of that length before ``request_span.end``;
            None sends nothing.
        request_span: the span that is sent as dateFrom and dateTo. It ends after ``span`` where ``metrics_delay``
            would otherwise cut into it; the surplus buckets are dropped.
        measure: what is measured.
        group_by: the dimensions by which figures are split, sorted.
    """

    org: str
    span: Span
    granularity: Granularity
    timezone: str
    flows: tuple[str, ...]
    page_size: int
    metrics_delay: timedelta | None
    request_span: Span
    measure: Measure = Measure.OUTCOMES
    group_by: tuple[str, ...] = ()


class SplitHint(NamedTuple):
    """The size that passes where a larger query was rejected.

    Attributes:
        granularity: the length of the query's buckets.
        span: from the start of the query that was too large to the end of its scan.
        by_flow: whether the query listed flows.
        half: the size of its larger half: buckets times listed flows.
    """

    granularity: Granularity
    span: Span
    by_flow: bool
    half: int


class QueryWidth(NamedTuple):
    """What was learned of the width of an org's queries at one granularity, in buckets.

    Attributes:
        served: the widest that was served, of those below ``refused``; None where none was.
        refused: the narrowest that was refused; None where it is unknown.
        learned_at: when a query was last refused.
        first_in: the cycle in which one bucket was refused, after which the next cycle begins with one window;
            None where it begins as usual.
    """

    served: int | None
    refused: int | None
    learned_at: datetime
    first_in: str | None = None


class Figure(msgspec.Struct, gc=False):
    """The JSON values that the API reports for one outcome, before validation.

    A struct, so that a dialect can decode into it directly.

    Attributes:
        outcome_count: the count.
        percent_of_total: the share, from 0 to 1; None where absent.
        success: the count of successes; None where absent.
        failure: the count of failures; None where absent.
        executions: the count of executions; None where absent or no count.
        duration: the durations; None where absent. With a count of None they are those of another part.
    """

    outcome_count: object
    percent_of_total: object = None
    success: object = None
    failure: object = None
    executions: object = None
    duration: DurationStats | None = None


class ValidFigure(Figure, gc=False):
    """A figure whose count and share the decoder found within their bounds, with no successes or failures."""

    outcome_count: int
    percent_of_total: float | None = None
    success: None = None
    failure: None = None
    executions: None = None
    duration: None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One element of a page, split into its parts but not validated.

    Attributes:
        flow_id: the JSON value of the flow's id; None where absent.
        interval: the JSON values of start and end; None where absent.
        outcomes: figures by the API's own name or id of the outcome; None where their shape is unknown.
        raw: the element's JSON text as received, for ``rejected_entry``.
        part: which part of the figures the entry holds, where the API splits them by a dimension that was not
            requested; the parts of one outcome add up. Empty where an entry is complete.
        dimensions: the JSON values of the dimensions by which the query is grouped; None where absent.
    """

    flow_id: object
    interval: tuple[object, object]
    outcomes: Mapping[str, Figure] | None
    raw: str
    part: str = ""
    dimensions: Mapping[str, object] = {}


class ValidEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry whose figures are all valid, as most are; flow, interval and names are not validated.

    Attributes:
        flow_id: the flow's id.
        interval: the JSON values of start and end.
        outcomes: figures by the API's own name or id of the outcome.
        raw_texts: returns the JSON texts of the page's elements; called only if this entry is rejected.
        index: the entry's place among them.
    """

    flow_id: str
    interval: tuple[object, object]
    outcomes: Mapping[str, ValidFigure]
    raw_texts: Callable[[], Sequence[str]]
    index: int

    def as_entry(self) -> Entry:
        """The same entry with its JSON text, for validation figure by figure."""
        return Entry(self.flow_id, self.interval, self.outcomes, self.raw_texts()[self.index])


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a query's response.

    Attributes:
        entries: its elements, in order.
        more: False only where the API marked the page as the last one.
        date: the response's ``Date``, in UTC; None where it had no valid one.
    """

    entries: Sequence[Entry | ValidEntry]
    more: bool
    date: datetime | None = None


class FlowBucket(msgspec.Struct, frozen=True, gc=False):
    """One bucket of one flow, shared by the rows of an entry.

    Attributes:
        flow_id: the flow's id.
        start: the bucket's start, in UTC.
        end: the bucket's end, in UTC.
        part: as in ``Entry``.
        dimensions: by which the query is grouped, as JSON with sorted keys.
    """

    flow_id: str
    start: datetime
    end: datetime
    part: str = ""
    dimensions: str = NO_DIMENSIONS


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """One normalised figure.

    Rows of one outcome and bucket that differ in ``bucket.part`` add up in the merge; of those that do not, equal
    ones count once.

    Attributes:
        bucket: the flow and the bucket.
        source_key: the outcome's name or id as the API reports it, before any alias. Empty in a row that only
            marks the flow's total in this bucket as unknown, because a rejected outcome has no usable name.
        outcome_count: the count; None where ``rejected`` is true, and in a part that has durations alone.
        outcome_percentage: the reported share, from 0 to 1; None where absent or outside these bounds.
        rejected: whether the outcome was rejected.
        success: the count of successes; None where unknown.
        failure: the count of failures; None where unknown.
        executions: the count of executions; None where unknown.
        duration: None where there is none.
    """

    bucket: FlowBucket
    source_key: str
    outcome_count: int | None
    outcome_percentage: float | None
    rejected: bool
    success: int | None = None
    failure: int | None = None
    executions: int | None = None
    duration: Duration | None = None


class Reject(NamedTuple):
    """One rejected outcome, or one rejected entry.

    Attributes:
        reason: why, in words.
        raw: the entry's JSON text as received; NUL and lone surrogates are escaped in it.
        flow_id: None where unknown.
        bucket_start: in UTC; None where unknown.
        outcome: the outcome's name or id; None where unknown.
    """

    reason: str
    raw: str
    flow_id: str | None
    bucket_start: datetime | None
    outcome: str | None

    @property
    def identified(self) -> bool:
        """Whether flow, bucket and outcome are known; otherwise no absence in the window is conclusive."""
        return None not in (self.flow_id, self.bucket_start, self.outcome)


@dataclass(frozen=True, slots=True)
class NormalisedPage:
    """The rows and rejects of one page.

    Attributes:
        rows: the rows of entries that were validated figure by figure.
        rejects: the rejected outcomes and entries.
        shares_fit: whether each share is within tolerance of its count over the total of its own entry. A share
            that is not may still fit another denominator.
        valid: the entries that need no row object per figure: bucket, without a part, and figures by name.
        contradictions: by bucket start, the figures whose successes and failures do not fit the count.
        invalid_durations: by bucket start, the figures whose durations are invalid.
    """

    rows: list[OutcomeRow]
    rejects: list[Reject]
    shares_fit: bool = False
    valid: list[tuple[FlowBucket, Mapping[str, ValidFigure]]] = field(default_factory=list)
    contradictions: Mapping[datetime, int] = field(default_factory=dict)
    invalid_durations: Mapping[datetime, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Window:
    """A span to extract, and how to query it.

    Attributes:
        org: the org's name.
        stream: the window's group in the ledger: ``job:NAME`` for a job's windows, ``ad hoc`` for all others.
        job: the job's name; None for ad hoc work.
        span: begins and ends on bucket edges of ``granularity``.
        requested: ``hourly``, ``daily``, ``monthly`` or ``auto``, as configured.
        granularity: the granularity of its queries.
        due_at: the first instant at which it may be queried, in UTC.
        coarsened: whether the server rejected it one step finer; it is coarsened only once.
        measure: what its queries measure.
    """

    org: str
    stream: str
    job: str | None
    span: Span
    requested: str
    granularity: Granularity
    due_at: datetime
    coarsened: bool = False
    measure: Measure = Measure.OUTCOMES

    @property
    def request(self) -> tuple[Span, str, Measure]:
        """What identifies it among the windows of its stream."""
        return self.span, self.requested, self.measure


@dataclass(frozen=True, slots=True)
class Scan:
    """Adjacent windows of one stream that are queried and stored together.

    Attributes:
        windows: in order of time.
        queries: together they cover the windows' spans exactly.
        expect_for: how long an outcome is expected after it was last seen.
        delay: how long after its end a window settles.
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
        """The granularity of all its windows."""
        return self.windows[0].granularity

    @property
    def measure(self) -> Measure:
        """What all its windows measure."""
        return self.windows[0].measure

    @property
    def group_by(self) -> tuple[str, ...]:
        """The dimensions by which its figures are split, sorted."""
        return self.queries[0].group_by

    @property
    def span(self) -> Span:
        """From the first window's start to the last window's end."""
        return Span(self.windows[0].span.start, self.windows[-1].span.end)

    def check_settled(self, now: datetime) -> None:
        """Check that each window's end plus the delay has passed.

        Args:
            now: the time by the deciding clock.

        Raises:
            NotSettledError: a window has not settled; the error holds the number of windows before it.
        """
        for settled, window in enumerate(self.windows):
            settles_at = window.span.end + self.delay
            if settles_at > now:
                raise NotSettledError(
                    f"not settled: the window settles at {instant(settles_at)}, and the API's clock shows"
                    f" {instant(now)}",
                    settled=settled,
                    seconds=(settles_at - now).total_seconds(),
                )

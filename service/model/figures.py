"""What an API reports, as read and as stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from service.model.measures import NO_DIMENSIONS, Duration, DurationStats

COUNT_MAX = 2**63 - 1
"""The largest count that fits PostgreSQL's bigint."""

NAME_BYTES_MAX = 512
"""The longest flow id or outcome name that is stored, in bytes of UTF-8."""


class Figure(msgspec.Struct, gc=False):
    """The JSON values that the API reports for one outcome, before validation.

    A struct, so that a dialect can decode into it directly.

    Attributes:
        outcome_count: the count.
        percent_of_total: the share, from 0 to 1; None where absent.
        success: the count of successes; None where absent.
        failure: the count of failures; None where absent.
        executions: the count of executions; None where absent or no count.
        duration: the durations; None where absent. Beside a count of None, another part has the count.
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

"""Entries of a page to rows and rejects. Pure: a ``BucketGrid`` holds what is known of the query."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.errors import InvalidResponseError
from service.extraction.json_values import duration_of, is_number, share_of, shown, whole_number
from service.model import (
    INVALID_DURATION,
    NAME_BYTES_MAX,
    NO_DIMENSIONS,
    Entry,
    Figure,
    FlowBucket,
    NormalisedPage,
    OutcomeRow,
    Query,
    Reject,
    Span,
    ValidEntry,
    ValidFigure,
    instant,
)

SHARE_TOLERANCE = 0.0099
"""Below the 0.01 from which a share counts as a mismatch, by more than the rounding of a double."""
_CACHE_SIZE = 8192
"""Intervals and names whose validation is cached; a page repeats the same few."""

_iso = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class BucketGrid:
    """The buckets that a query's entries may lie in. Built once for a query; caches what it validated.

    Attributes:
        buckets: end by start of each bucket to store, in UTC; they cover ``span`` without a gap.
        span: the span to store.
        request_span: the span that was requested; after ``span.end`` it holds the surplus of ``metricsDelay``.
        timezone: IANA name, for messages.
        is_edge: whether a bucket may begin at an instant.
        group_by: the dimensions by which the query is grouped.
        names: valid outcome names.
        flows: valid flow ids.
    """

    buckets: Mapping[datetime, datetime]
    span: Span
    request_span: Span
    timezone: str
    is_edge: Callable[[datetime], bool]
    group_by: tuple[str, ...] = ()
    names: set[str] = field(default_factory=set, repr=False, compare=False)
    flows: set[str] = field(default_factory=set, repr=False, compare=False)
    _located: dict[tuple[object, object], Span | str | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, query: Query, buckets: Sequence[Span], is_edge: Callable[[datetime], bool]) -> BucketGrid:
        """The grid of a query whose span consists of these buckets."""
        return cls(dict(buckets), query.span, query.request_span, query.timezone, is_edge, query.group_by)

    def locate(self, interval: tuple[object, object]) -> Span | str | None:
        """The bucket of an interval; None for a surplus bucket, a reason for a rejected interval.

        Raises:
            InvalidResponseError: the API's buckets do not match the query's time zone and granularity.
        """
        start, end = interval
        if not (isinstance(start, str) and isinstance(end, str)):
            return "the entry has no valid interval"
        try:
            return self._located[interval]
        except KeyError:
            location = self._locate(start, end)
        if len(self._located) >= _CACHE_SIZE:
            self._located.clear()
        self._located[interval] = location
        return location

    def accepts(self, entry: ValidEntry) -> bool:
        """Whether the entry's flow id and outcome names are valid."""
        flow_id, named = entry.flow_id, entry.outcomes.keys()
        if flow_id not in self.flows:
            if flow_fault(flow_id) is not None:
                return False
            if len(self.flows) >= _CACHE_SIZE:
                self.flows.clear()
            self.flows.add(flow_id)
        return named <= self.names or not any(map(self.name_fault, named))

    def name_fault(self, name: str) -> str | None:
        """Why an outcome's name is invalid; None if it is valid."""
        if name in self.names:
            return None
        if not name:
            return "the outcome's name is empty"
        fault = text_fault(name)
        if fault is not None:
            return f"the outcome's name {fault}"
        if len(self.names) >= _CACHE_SIZE:
            self.names.clear()
        self.names.add(name)
        return None

    def dimensions(self, values: Mapping[str, object]) -> str | None:
        """The dimensions of an entry as JSON with sorted keys; None where one of them is invalid."""
        if not values:
            return NO_DIMENSIONS
        if any(
            value is not None and not (isinstance(value, str) and not text_fault(value))
            for value in values.values()
        ):
            return None
        return json.dumps(dict(sorted(values.items())), ensure_ascii=False)

    def _locate(self, start_text: str, end_text: str) -> Span | str | None:
        start, end = parse_instant(start_text), parse_instant(end_text)
        if start is None or end is None:
            return "the entry has no valid interval"
        expected = self.buckets.get(start)
        if expected is not None:
            if end != expected:
                raise InvalidResponseError(
                    f"bucket {Span(start, end)} ends elsewhere than at {instant(expected)},"
                    f" as the time zone {self.timezone} and the granularity require; check the org's timezone"
                )
            return Span(start, end)
        try:
            aligned = self.is_edge(start)
        except (OverflowError, ValueError):  # the years 1 and 9999 are out of a time zone's range
            return "the bucket lies outside the window"
        if not aligned or self.span.start <= start < self.span.end:
            raise InvalidResponseError(
                f"bucket begins at {instant(start)}, which is no bucket edge in the time zone {self.timezone};"
                " check the org's timezone"
            )
        if self.span.end <= start < self.request_span.end:
            return None
        return "the bucket lies outside the window"


def normalise(entries: Sequence[Entry | ValidEntry], grid: BucketGrid) -> NormalisedPage:
    """The rows and rejects of one page, in its order.

    A row with an empty ``source_key`` marks the flow's total in that bucket as unknown.

    Raises:
        InvalidResponseError: the API's buckets do not match the query's time zone and granularity.
    """
    result = _PageResult(grid)
    for entry in entries:
        location = grid.locate(entry.interval)
        if location is None:
            continue
        if not isinstance(entry, ValidEntry):
            result.add(entry, location)
        elif isinstance(location, Span) and grid.accepts(entry):
            result.add_valid(FlowBucket(entry.flow_id, *location), entry.outcomes)
        else:
            result.add(entry.as_entry(), location)
    return NormalisedPage(
        result.rows,
        result.rejects,
        result.shares_fit,
        result.valid,
        result.contradictions,
        result.invalid_durations,
    )


class _PageResult:
    """The rows and rejects of one page while they are collected."""

    def __init__(self, grid: BucketGrid) -> None:
        self.rows: list[OutcomeRow] = []
        self.rejects: list[Reject] = []
        self.shares_fit = True
        self.valid: list[tuple[FlowBucket, Mapping[str, ValidFigure]]] = []
        self.contradictions: Counter[datetime] = Counter()
        self.invalid_durations: Counter[datetime] = Counter()
        self._grid = grid

    def add_valid(self, bucket: FlowBucket, outcomes: Mapping[str, ValidFigure]) -> None:
        """Add an entry that is valid in every part."""
        if outcomes:
            self.valid.append((bucket, outcomes))
        if self.shares_fit:
            self.shares_fit = _shares_fit(outcomes.values())

    def add(self, entry: Entry, location: Span | str) -> None:
        """Validate and add an entry; ``location`` is its bucket, or why it has none."""
        flow_id, outcomes = entry.flow_id, entry.outcomes
        fault = flow_fault(flow_id)
        known_flow = flow_id if fault is None and isinstance(flow_id, str) else None
        dimensions = self._grid.dimensions(entry.dimensions)
        if known_flow is None or isinstance(location, str) or outcomes is None:
            self._reject(entry, location, fault, known_flow)
        elif dimensions is None:
            self._reject_dimensions(entry, location, known_flow)
        else:
            self._add_outcomes(entry, FlowBucket(known_flow, *location, entry.part, dimensions), outcomes)

    def _add_outcomes(self, entry: Entry, bucket: FlowBucket, outcomes: Mapping[str, Figure]) -> None:
        total_known, valid = True, []
        for name, figure in outcomes.items():
            if fault := self._grid.name_fault(name):
                self.rejects.append(Reject(fault, entry.raw, bucket.flow_id, bucket.start, None))
                total_known = False
            elif isinstance(row := self._row(bucket, name, figure), OutcomeRow):
                self.rows.append(row)
                valid.append(ValidFigure(row.outcome_count or 0, row.outcome_percentage))
            else:
                self.rejects.append(Reject(row, entry.raw, bucket.flow_id, bucket.start, name))
                self.rows.append(OutcomeRow(bucket, name, None, None, rejected=True))
        if not total_known:
            self.rows.append(OutcomeRow(bucket, "", None, None, rejected=True))
        if self.shares_fit:
            self.shares_fit = len(valid) == len(outcomes) and _shares_fit(valid)

    def _row(self, bucket: FlowBucket, name: str, figure: Figure) -> OutcomeRow | str:
        """The row of one outcome, or why it is rejected."""
        count = whole_number(figure.outcome_count)
        share, percentage = figure.percent_of_total, share_of(figure.percent_of_total)
        success, failure = figure.success, figure.failure
        success_count, failure_count = whole_number(success), whole_number(failure)
        duration = duration_of(figure.duration)
        if duration is INVALID_DURATION:
            self.invalid_durations[bucket.start] += 1
        if count is None and figure.outcome_count is None and figure.duration is not None:
            return OutcomeRow(bucket, name, None, None, rejected=False, duration=duration)
        if count is None:
            return f"count is not a whole number from 0 to 2^63-1: {shown(figure.outcome_count)}"
        if percentage is None and share is not None and not is_number(share):
            return f"percentOfTotal is not a number: {shown(share)}"
        if not (success is None is failure) and (
            success_count is None or failure_count is None or success_count + failure_count > count
        ):
            self.contradictions[bucket.start] += 1  # the count is not in doubt, only its split
            success_count = failure_count = None
        executions = whole_number(figure.executions)
        return OutcomeRow(
            bucket, name, count, percentage, False, success_count, failure_count, executions, duration
        )

    def _reject(self, entry: Entry, location: Span | str, fault: str | None, flow_id: str | None) -> None:
        """Reject an entry: each of its outcomes, or the entry itself where its outcomes are unknown."""
        reason = fault or (location if isinstance(location, str) else "the entry's outcomes have an unknown shape")
        start = location.start if isinstance(location, Span) else None
        names = [None if self._grid.name_fault(name) else name for name in entry.outcomes or ()]
        self.rejects.extend(Reject(reason, entry.raw, flow_id, start, name) for name in names or [None])
        if flow_id is not None and isinstance(location, Span):
            self._mark_unknown(flow_id, location)

    def _reject_dimensions(self, entry: Entry, location: Span, flow_id: str) -> None:
        """Reject an entry with an invalid dimension: it may be a part of any series of its flow."""
        values = entry.dimensions.items()
        name, value = next((name, value) for name, value in values if self._grid.dimensions({name: value}) is None)
        reason = f"the dimension {name} is no text of at most {NAME_BYTES_MAX} bytes: {shown(value)}"
        self.rejects.append(Reject(reason, entry.raw, flow_id, location.start, None))
        self._mark_unknown(flow_id, location)

    def _mark_unknown(self, flow_id: str, location: Span) -> None:
        """Mark the flow's total in a bucket as unknown."""
        dimensions = self._grid.dimensions(dict.fromkeys(self._grid.group_by)) or NO_DIMENSIONS
        bucket = FlowBucket(flow_id, *location, dimensions=dimensions)
        self.rows.append(OutcomeRow(bucket, "", None, None, rejected=True))


def _shares_fit(figures: Collection[ValidFigure]) -> bool:
    """Whether each share of an entry is within tolerance of its count over the entry's total."""
    total = sum([figure.outcome_count for figure in figures]) or 1
    for figure in figures:
        share = figure.percent_of_total
        if share is not None and not -SHARE_TOLERANCE <= share - figure.outcome_count / total <= SHARE_TOLERANCE:
            return False
    return True


def parse_instant(text: str) -> datetime | None:
    """An ISO 8601 date and time with ``Z`` or an offset, in UTC; None for any other text."""
    if not _iso.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def flow_fault(flow_id: object) -> str | None:
    """Why a flow's id is invalid; None if it is valid."""
    if not isinstance(flow_id, str):
        return "the entry has no flow id" if flow_id is None else f"the flow id is not a string: {shown(flow_id)}"
    if not flow_id or flow_id.isspace():
        return "the flow id is blank"
    fault = text_fault(flow_id)
    return fault and f"the flow id {fault}"


def text_fault(text: str) -> str | None:
    """Why a text is invalid as an id or a name, as a verb phrase; None if it is valid."""
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "contains a lone surrogate"
    if size > NAME_BYTES_MAX:
        return f"is longer than {NAME_BYTES_MAX} bytes of UTF-8"
    return "contains a NUL" if "\0" in text else None

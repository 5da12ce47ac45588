"""Entries of a page to rows and rejects. Pure: what is known of the query comes in as a ``BucketGrid``."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.errors import PageError
from service.extraction.json_values import is_number, share_of, shown, whole_number
from service.model import (
    Entry,
    Figure,
    FlowBucket,
    Normalised,
    OutcomeRow,
    Query,
    Reject,
    Span,
    ValidEntry,
    ValidFigure,
    instant,
)

NAME_BYTES_MAX = 512
SHARE_NEAR = 0.0099
"""Below what counts as a mismatch, 0.01, by more than what a double rounds."""
_REMEMBERED = 8192
"""Intervals and names kept with a verdict; a page repeats the same few."""

_iso = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class BucketGrid:
    """The buckets that a query's entries may lie in. Built once for a query; it remembers its verdicts.

    Attributes:
        buckets: end by start of each bucket that is wanted, in UTC; they tile ``kept``.
        kept: the span that is wanted.
        asked: the span that was asked for; past ``kept.end`` lie the surplus buckets of ``metricsDelay``.
        timezone: IANA name, for the reasons.
        is_edge: whether a bucket may begin at this instant.
        names, flows: outcomes' names and flows' ids known to be sound.
    """

    buckets: Mapping[datetime, datetime]
    kept: Span
    asked: Span
    timezone: str
    is_edge: Callable[[datetime], bool]
    names: set[str] = field(default_factory=set, repr=False, compare=False)
    flows: set[str] = field(default_factory=set, repr=False, compare=False)
    _places: dict[tuple[object, object], Span | str | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def of(cls, query: Query, buckets: Sequence[Span], is_edge: Callable[[datetime], bool]) -> BucketGrid:
        """The frame of a query whose span these buckets tile."""
        return cls(dict(buckets), query.span, query.asked, query.timezone, is_edge)

    def place(self, interval: tuple[object, object]) -> Span | str | None:
        """The wanted bucket that this is; None for a surplus one; a reason in words where it is neither.

        Raises:
            PageError: the engine cut time elsewhere than the query's time zone and granularity say.
        """
        start, end = interval
        if not (isinstance(start, str) and isinstance(end, str)):
            return "the entry has no interval that can be read"
        try:
            return self._places[interval]
        except KeyError:
            place = self._judge(start, end)
        if len(self._places) >= _REMEMBERED:
            self._places.clear()
        self._places[interval] = place
        return place

    def knows(self, entry: ValidEntry) -> bool:
        """Whether there is nothing wrong with the entry's flow and its outcomes' names."""
        flow_id, named = entry.flow_id, entry.outcomes.keys()
        if flow_id not in self.flows:
            if flow_fault(flow_id) is not None:
                return False
            if len(self.flows) >= _REMEMBERED:
                self.flows.clear()
            self.flows.add(flow_id)
        return named <= self.names or not any(map(self.name_fault, named))

    def name_fault(self, name: str) -> str | None:
        """What is wrong with an outcome's name, in words, or None."""
        if name in self.names:
            return None
        if not name:
            return "the outcome's name is empty"
        fault = text_fault(name)
        if fault is not None:
            return f"the outcome's name {fault}"
        if len(self.names) >= _REMEMBERED:
            self.names.clear()
        self.names.add(name)
        return None

    def _judge(self, start_text: str, end_text: str) -> Span | str | None:
        start, end = parse_instant(start_text), parse_instant(end_text)
        if start is None or end is None:
            return "the entry has no interval that can be read"
        wanted = self.buckets.get(start)
        if wanted is not None:
            if end != wanted:
                raise PageError(
                    f"bucket {Span(start, end)} does not end at {instant(wanted)},"
                    f" where the time zone {self.timezone} and the granularity say"
                )
            return Span(start, end)
        try:
            aligned = self.is_edge(start)
        except (OverflowError, ValueError):  # the year 1 or 9999, past what a time zone can be asked about
            return "the bucket lies outside the window"
        if not aligned or self.kept.start <= start < self.kept.end:
            raise PageError(f"bucket begins at {instant(start)}, not where the time zone {self.timezone} says")
        if self.kept.end <= start < self.asked.end:
            return None
        return "the bucket lies outside the window"


def normalise(entries: Sequence[Entry | ValidEntry], frame: BucketGrid) -> Normalised:
    """The rows and the refused outcomes of one page, in its order.

    A row whose ``source_key`` is empty says that the flow's total in that bucket is not known, since an outcome
    was refused whose name cannot be told.

    Raises:
        PageError: a bucket is not cut where the query's time zone and granularity say; no entry can be believed.
    """
    verdict = _PageResult(frame)
    for entry in entries:
        place = frame.place(entry.interval)
        if place is None:
            continue
        if not isinstance(entry, ValidEntry):
            verdict.add(entry, place)
        elif isinstance(place, Span) and frame.knows(entry):
            verdict.take(FlowBucket(entry.flow_id, *place), entry.outcomes)
        else:
            verdict.add(entry.plain(), place)
    return Normalised(verdict.rows, verdict.rejects, verdict.shares_fit, verdict.sound)


class _PageResult:
    """The rows and rejects of one page, as they come together."""

    def __init__(self, frame: BucketGrid) -> None:
        self.rows: list[OutcomeRow] = []
        self.rejects: list[Reject] = []
        self.shares_fit = True
        self.sound: list[tuple[FlowBucket, Mapping[str, ValidFigure]]] = []
        self._frame = frame

    def take(self, bucket: FlowBucket, outcomes: Mapping[str, ValidFigure]) -> None:
        """An entry with nothing wrong in it."""
        if outcomes:
            self.sound.append((bucket, outcomes))
        if self.shares_fit:
            self.shares_fit = _fit(outcomes.values())

    def add(self, entry: Entry, place: Span | str) -> None:
        """Judge one entry; ``place`` is its bucket, or why it has none."""
        flow_id, outcomes = entry.flow_id, entry.outcomes
        fault = flow_fault(flow_id)
        known_flow = flow_id if fault is None and isinstance(flow_id, str) else None
        if known_flow is None or isinstance(place, str) or outcomes is None:
            self._refuse(entry, place, fault, known_flow)
        else:
            self._judge(entry, FlowBucket(known_flow, *place, entry.part), outcomes)

    def _judge(self, entry: Entry, bucket: FlowBucket, outcomes: Mapping[str, Figure]) -> None:
        """The outcomes of an entry whose flow and bucket are known."""
        total_known, sound = True, []
        for name, figure in outcomes.items():
            if fault := self._frame.name_fault(name):
                self.rejects.append(Reject(fault, entry.text, bucket.flow_id, bucket.start, None))
                total_known = False
            elif isinstance(row := self._row(bucket, name, figure), OutcomeRow):
                self.rows.append(row)
                sound.append(ValidFigure(row.outcome_count or 0, row.outcome_percentage))
            else:
                self.rejects.append(Reject(row, entry.text, bucket.flow_id, bucket.start, name))
                self.rows.append(OutcomeRow(bucket, name, None, None, rejected=True))
        if not total_known:
            self.rows.append(OutcomeRow(bucket, "", None, None, rejected=True))
        if self.shares_fit:
            self.shares_fit = len(sound) == len(outcomes) and _fit(sound)

    def _row(self, bucket: FlowBucket, name: str, figure: Figure) -> OutcomeRow | str:
        """The row of one outcome, or why it is refused."""
        count, whole = figure.outcome_count, whole_number(figure.outcome_count)
        share, percentage = figure.percent_of_total, share_of(figure.percent_of_total)
        success, failure = figure.success, figure.failure
        good, bad = whole_number(success), whole_number(failure)
        if whole is None:
            return f"count is not a whole number from 0 to 2^63-1: {shown(count)}"
        if percentage is None and share is not None and not is_number(share):
            return f"percentOfTotal is not a number: {shown(share)}"
        if success is None is failure or (good is not None and bad is not None and good + bad <= whole):
            return OutcomeRow(bucket, name, whole, percentage, False, good, bad)
        return f"successes and failures do not fit the count: {shown(success)} and {shown(failure)}"

    def _refuse(self, entry: Entry, place: Span | str, fault: str | None, flow_id: str | None) -> None:
        """An entry refused whole: a reject for each outcome in it, or one where none can be told."""
        reason = fault or (place if isinstance(place, str) else "the entry's outcomes have no known shape")
        start = place.start if isinstance(place, Span) else None
        names = [None if self._frame.name_fault(name) else name for name in entry.outcomes or ()]
        self.rejects.extend(Reject(reason, entry.text, flow_id, start, name) for name in names or [None])
        if flow_id is not None and isinstance(place, Span):
            self.rows.append(OutcomeRow(FlowBucket(flow_id, *place), "", None, None, rejected=True))


def _fit(figures: Collection[ValidFigure]) -> bool:
    """Whether the shares of one entry are near their counts' parts of its total."""
    total = sum([figure.outcome_count for figure in figures]) or 1
    for figure in figures:
        share = figure.percent_of_total
        if share is not None and not -SHARE_NEAR <= share - figure.outcome_count / total <= SHARE_NEAR:
            return False
    return True


def parse_instant(text: str) -> datetime | None:
    """A strict ISO 8601 date and time with ``Z`` or an offset, in UTC; None for anything else."""
    if not _iso.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def flow_fault(flow_id: object) -> str | None:
    """What is wrong with a flow's id, in words, or None."""
    if not isinstance(flow_id, str):
        return "the entry has no flow id" if flow_id is None else f"the flow id is no text: {shown(flow_id)}"
    if not flow_id or flow_id.isspace():
        return "the flow id is blank"
    fault = text_fault(flow_id)
    return fault and f"the flow id {fault}"


def text_fault(text: str) -> str | None:
    """Why a text cannot be stored to the letter, or is too long to be a name; None where it can."""
    if text.isascii():
        size = len(text)
    else:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            return "holds a lone surrogate"
    if size > NAME_BYTES_MAX:
        return f"is longer than {NAME_BYTES_MAX} bytes of UTF-8"
    return "holds a NUL" if "\0" in text else None

"""A scan's rows, packed for binary COPY as the pages arrive.

A packed row takes a fraction of the memory of the objects that it is made from, and packing takes a third of the
time of the driver's own COPY. An entry's bucket is packed once. A name is packed once per scan and gets a number,
which the rows carry. How a row begins depends on the table, so that part is added when the row is sent.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from struct import Struct
from sys import intern
from typing import LiteralString

import msgspec

from service.model import FlowBucket, NormalisedPage, OutcomeRow
from service.postgres.merge.binary_copy import (
    NULL,
    pack_float8,
    pack_instant,
    pack_int4,
    pack_int8,
    pack_jsonb,
    pack_text,
)

COLUMNS: LiteralString = (
    "bucket_start, bucket_end, state, success_count, failure_count, outcome_count, outcome_percentage"
)
"""The columns of a packed row after its prefix and, where parts are sent, ``part``."""
ALL_COLUMNS: LiteralString = (
    f"{COLUMNS}, execution_count, duration_count, duration_sum_ms, duration_min_ms, duration_max_ms"
)
"""The same for an API that reports more than counts and shares."""
NAME_COLUMNS: LiteralString = "name_no, flow_id, source_key, dimensions"
"""The columns of a packed name after its prefix."""
ROWS_PER_CHUNK = 512
"""Rows after which a chunk ends; it ends with a complete entry."""

_NAMES_MAX = 32_768
"""Names whose numbers are cached. A name past these gets a new number each time."""
_BITS_MAX = 2**25
"""Flows times buckets up to which a bit for each records whether it was reported."""
_ENTRY_BYTES = 120
"""Memory of an entry besides its packed figures."""
_NUMBER_BYTES = 40
"""Memory of an outcome's number and the reference to it."""
_OBJECT_BYTES = 40
"""Memory of a bytes object and the reference to it, besides its content."""
_LENGTH_8 = b"\0\0\0\x08"
_NO_PART = bytes(4)
_NO_DURATION = NULL * 4
# The count and the share of a valid figure; the columns before these are the same for all of its entry.
_pack_valid = Struct("!qid").pack
_VALID_BYTES = len(_pack_valid(0, 8, 0.0))


class _PackedEntry(msgspec.Struct, frozen=True, gc=False):
    """Figures of one entry.

    Attributes:
        numbers: the numbers of their names.
        part: packed.
        shared: the packed columns that are equal for all of them.
        figures: the other packed columns, of equal length for each.
    """

    numbers: tuple[int, ...]
    part: bytes
    shared: bytes
    figures: bytes


class _Flow:
    """A flow of the scan, in one combination of dimensions.

    Attributes:
        packed_id: its id.
        packed_dimensions: the dimensions.
        numbers: the number of each name.
        number_cache: the numbers of the names of an entry, as entries list them.
        buckets: a bit for each bucket that it reported.
    """

    __slots__ = ("buckets", "number_cache", "numbers", "packed_dimensions", "packed_id")

    def __init__(self, flow_id: str, dimensions: str) -> None:
        self.packed_id = pack_text(flow_id)
        self.packed_dimensions = pack_jsonb(dimensions)
        self.numbers: dict[str, int] = {}
        self.number_cache: dict[tuple[str, ...], tuple[int, ...]] = {}
        self.buckets = 0


class _Bucket:
    """A bucket of the scan.

    Attributes:
        bit: stands for it in ``_Flow.buckets``.
        reported: the packed bucket and state of a reported figure.
        rejected: the same of a rejected one.
        valid: the packed columns of a valid figure before its count.
        rows: figures reported in it.
    """

    __slots__ = ("bit", "rejected", "reported", "rows", "valid")

    def __init__(self, bucket: FlowBucket, bit: int) -> None:
        packed = pack_instant(bucket.start) + pack_instant(bucket.end)
        self.bit = bit
        self.reported = packed + pack_text("reported")
        self.rejected = packed + pack_text("rejected")
        self.valid = self.reported + NULL + NULL + _LENGTH_8
        self.rows = 0


class Packer:
    """Packs a scan's rows, and the names that they refer to.

    Args:
        columns: the columns of a row: ``COLUMNS``, or ``ALL_COLUMNS``.

    Attributes:
        columns: the same.
        rows: rows packed so far.
        names: names numbered so far, from one; a name may have several numbers.
        has_parts: whether a row is a part of its outcome's figure.
        may_repeat: whether an outcome may have been reported twice in one bucket.
        memory: bytes held, about.
    """

    def __init__(self, columns: LiteralString = ALL_COLUMNS) -> None:
        self.columns = columns
        self._rest = NULL + _NO_DURATION if columns == ALL_COLUMNS else b""  # of a figure of counts and shares
        self.has_parts = False
        self.may_repeat = False
        self.names = self.rows = self.memory = 0
        self._entries: list[_PackedEntry] = []
        self._packed_names: list[bytes] = []
        self._cleared_counts: list[int] = []  # by number, how often it came in rows that were cleared
        self._flows: dict[tuple[str, str], _Flow] = {}
        self._buckets: dict[datetime, _Bucket] = {}
        self._names_cached = self._lists_cached = 0

    def add(self, page: NormalisedPage) -> None:
        """Pack a page's rows. Those of an entry are adjacent, share its bucket, and differ in their outcomes."""
        append, rows, rest = self._entries.append, 0, self._rest
        for flow_bucket, outcomes in page.valid:
            flow, bucket = self._note(flow_bucket)
            keys = tuple(outcomes)
            if not keys:
                continue
            numbers = flow.number_cache.get(keys) or self._numbers(flow, keys)
            try:
                figures = [_pack_valid(it.outcome_count, 8, it.percent_of_total) for it in outcomes.values()]
            except struct.error:  # a share is absent
                packed = [_figure(it.outcome_count, it.percent_of_total) + rest for it in outcomes.values()]
                self._add(numbers, _NO_PART, bucket.reported, packed)
            else:
                append(_PackedEntry(numbers, _NO_PART, bucket.valid, rest.join(figures) + rest))
                rows += len(keys)
            bucket.rows += len(keys)
        self.rows += rows
        self.memory += rows * (_VALID_BYTES + len(rest)) + _ENTRY_BYTES * len(page.valid)
        for _, entry in groupby(page.rows, key=lambda row: id(row.bucket)):
            self._add_rows(list(entry))

    def _add_rows(self, rows: Sequence[OutcomeRow]) -> None:
        """Pack the rows of one entry."""
        shared = rows[0].bucket
        flow, bucket = self._note(shared)
        self.has_parts = self.has_parts or bool(shared.part)
        if any(row.outcome_count is None and not row.rejected for row in rows):
            self.may_repeat = True  # durations whose count is in another part, if anywhere
        part = pack_text(shared.part)
        for rejected in (False, True):
            same = [row for row in rows if row.rejected is rejected]
            keys = tuple(row.source_key for row in same)
            numbers = flow.number_cache.get(keys) or self._numbers(flow, keys)
            figures = [
                _figure(it.outcome_count, it.outcome_percentage, it.success, it.failure)
                + (_more(it) if self._rest else b"")
                for it in same
            ]
            self._add(numbers, part, bucket.rejected if rejected else bucket.reported, figures)
            bucket.rows += 0 if rejected else len(same)

    def _add(self, numbers: tuple[int, ...], part: bytes, shared: bytes, figures: list[bytes]) -> None:
        """Keep figures of one entry, grouped by their length."""
        for size in dict.fromkeys(map(len, figures)):
            places = [place for place, figure in enumerate(figures) if len(figure) == size]
            own = numbers if len(places) == len(numbers) else tuple(numbers[place] for place in places)
            self._entries.append(_PackedEntry(own, part, shared, b"".join(figures[place] for place in places)))
            self.memory += size * len(own) + len(part) + _ENTRY_BYTES
            self.memory += 0 if own is numbers else _NUMBER_BYTES * len(own)
        self.rows += len(figures)

    def _note(self, flow_bucket: FlowBucket) -> tuple[_Flow, _Bucket]:
        """Record that an entry reported a flow's bucket."""
        key = flow_bucket.flow_id, flow_bucket.dimensions
        flow = self._flows.get(key)
        if flow is None:
            flow = _Flow(*key)
            if self._can_cache():
                self._flows[key] = flow
        bucket = self._buckets.get(flow_bucket.start)
        if bucket is None:
            bucket = self._buckets[flow_bucket.start] = _Bucket(flow_bucket, 1 << len(self._buckets))
        if not self.may_repeat:
            self.may_repeat = bool(flow.buckets & bucket.bit) or len(self._flows) * len(self._buckets) > _BITS_MAX
            flow.buckets |= bucket.bit
        return flow, bucket

    def _can_cache(self) -> bool:
        """Whether another name or flow can be cached; what is not cached may repeat unnoticed."""
        self.may_repeat = self.may_repeat or self._names_cached >= _NAMES_MAX
        return self._names_cached < _NAMES_MAX

    def _numbers(self, flow: _Flow, keys: tuple[str, ...]) -> tuple[int, ...]:
        """The numbers of an entry's names, cached for entries with the same names."""
        numbers = tuple(flow.numbers.get(key) or self._number(flow, key) for key in keys)
        if self._lists_cached < _NAMES_MAX:
            flow.number_cache[tuple(map(intern, keys))] = numbers  # one string per name, not one per page
            self._lists_cached += len(keys)
        else:
            self.memory += _NUMBER_BYTES * len(numbers)
        return numbers

    def _number(self, flow: _Flow, key: str) -> int:
        """Number and pack a name."""
        self.names += 1
        if self._can_cache():
            flow.numbers[intern(key)] = self.names
            self._names_cached += 1
        packed = pack_int4(self.names) + flow.packed_id + pack_text(key) + flow.packed_dimensions
        self._packed_names.append(packed)
        self.memory += len(packed) + _OBJECT_BYTES
        return self.names

    def reported(self) -> dict[datetime, int]:
        """Figures reported, by the start of the bucket; one that was reported twice counts twice."""
        return {start: bucket.rows for start, bucket in self._buckets.items() if bucket.rows}

    def sparse(self, buckets: int) -> list[int]:
        """The numbers of the names that are in fewer than so many buckets; exact unless ``may_repeat``."""
        counts = self._counts()
        return [number for number in range(1, self.names + 1) if counts[number] < buckets]

    def _counts(self) -> list[int]:
        """The rows of each name, by its number."""
        counts = self._cleared_counts + [0] * (self.names + 1 - len(self._cleared_counts))
        for numbers, entries in Counter(entry.numbers for entry in self._entries).items():
            for number in numbers:
                counts[number] += entries
        return counts

    def packed_rows(self, row_prefix: Callable[[int], bytes], *, parts: bool = False) -> Iterator[bytes]:
        """The rows held, in chunks; entries in the order of their first row's prefix.

        Args:
            row_prefix: gives the start of a row by the number of its name.
            parts: whether ``part`` is sent before ``columns``.
        """
        self._entries.sort(key=lambda entry: row_prefix(entry.numbers[0]))
        last: tuple[int, ...] = ()
        chunk: list[bytes] = []
        for entry in self._entries:
            if entry.numbers is not last:
                last, prefixes = entry.numbers, [row_prefix(number) for number in entry.numbers]
            shared, figures = entry.part + entry.shared if parts else entry.shared, entry.figures
            start, size = 0, len(figures) // len(last)
            for prefix in prefixes:
                end = start + size
                chunk += prefix, shared, figures[start:end]
                start = end
            if len(chunk) >= 3 * ROWS_PER_CHUNK:
                yield b"".join(chunk)
                chunk.clear()
        yield b"".join(chunk)

    def packed_names(self, prefix: bytes) -> Iterator[bytes]:
        """The names held, in chunks, each after the prefix."""
        for first in range(0, len(self._packed_names), ROWS_PER_CHUNK):
            yield b"".join(prefix + name for name in self._packed_names[first : first + ROWS_PER_CHUNK])

    def clear(self) -> None:
        """Drop the rows and names held; names keep their numbers."""
        if not self.may_repeat:
            self._cleared_counts = self._counts()
        self._entries, self._packed_names, self.memory = [], [], 0


def _figure(
    count: int | None, share: float | None, success: int | None = None, failure: int | None = None
) -> bytes:
    return pack_int8(success) + pack_int8(failure) + pack_int8(count) + pack_float8(share)


def _more(row: OutcomeRow) -> bytes:
    """The columns that only ``ALL_COLUMNS`` has."""
    executions, duration = pack_int8(row.executions), row.duration
    return executions + (_NO_DURATION if duration is None else b"".join(map(pack_int8, duration)))

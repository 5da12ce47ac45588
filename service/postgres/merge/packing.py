"""Rows as binary COPY sends them, packed as they come.

A packed row is a fraction of what it is made from, and making it takes a third of the driver's time: of an entry
the bucket is packed once, and a name goes once for the scan, with a number that its rows carry. What a row begins
with, its table's columns and its outcome, is put before it when it is sent.
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
    begin,
    pack_float8,
    pack_instant,
    pack_int4,
    pack_int8,
    pack_text,
)

COLUMNS: LiteralString = (
    "bucket_start, bucket_end, state, success_count, failure_count, outcome_count, outcome_percentage"
)
"""What a row has after what it begins with; where rows are sent with their parts, ``part`` stands before these."""
NAME_COLUMNS: LiteralString = "name_no, flow_id, source_key"

_NAMES = 32_768
"""Names kept with their numbers; those past so many get a new one each time."""
_SEEN = 2**25
"""Flows times buckets, of which it is kept, a bit for each, whether they came."""
ROWS_PER_CHUNK = 512
"""Rows that are sent in one piece; the next ones are of the next entry."""
_OVERHEAD = 120
"""Bytes that an entry takes beside its packed figures and what is its own of the following."""
_NUMBER = 40
"""Bytes of an outcome's number, and of where it stands."""
_OBJECT = 40
"""Bytes of an object and of where it stands, beside what it holds."""
_LONG = b"\0\0\0\x08"
_NO_PART = bytes(4)
# A sound figure, from its count on; what comes before that is the same for all of an entry.
_pack_sound = Struct("!qid").pack
_SOUND = len(_pack_sound(0, 8, 0.0))


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """Figures of one entry.

    Attributes:
        numbers: their outcomes', as the scan numbers them.
        part, shared: packed, what is the same for all of them.
        figures: packed, the rest of each, equally long.
    """

    numbers: tuple[int, ...]
    part: bytes
    shared: bytes
    figures: bytes


class _Flow:
    """A flow of the scan: its outcomes' numbers, one by one and as entries have them; a bit for each bucket."""

    __slots__ = ("numbers", "seen", "text", "told")

    def __init__(self, flow_id: str) -> None:
        self.text = pack_text(flow_id)
        self.numbers: dict[str, int] = {}
        self.told: dict[tuple[str, ...], tuple[int, ...]] = {}
        self.seen = 0


class _Bucket:
    """A bucket of the scan: its bit, how many figures were reported in it, and what these share, packed."""

    __slots__ = ("bit", "rejected", "reported", "rows", "sound")

    def __init__(self, bucket: FlowBucket, bit: int) -> None:
        packed = pack_instant(bucket.start) + pack_instant(bucket.end)
        self.bit = bit
        self.reported = packed + pack_text("reported")
        self.rejected = packed + pack_text("rejected")
        self.sound = self.reported + NULL + NULL + _LONG
        self.rows = 0


class Packer:
    """Packs a scan's rows, and the names that they are about, in ``NAME_COLUMNS``.

    Attributes:
        numbered: how many names there were in all, numbered from one; one may have come more than once.
        rows: how many were packed.
        parts: whether some row was a part of its outcome's figure.
        repeats: whether some outcome may have come twice in one bucket.
        held: about how many bytes are not forgotten.
    """

    def __init__(self) -> None:
        self.parts = False
        self.repeats = False
        self.numbered = self.rows = self.held = 0
        self._entries: list[_Entry] = []
        self._names: list[bytes] = []
        self._times: list[int] = []  # by number, how often it came in what is forgotten
        self._flows: dict[str, _Flow] = {}
        self._buckets: dict[datetime, _Bucket] = {}
        self._known = self._told = 0

    def pack(self, normalised: NormalisedPage) -> None:
        """Take a page's rows, those of one entry one after the other.

        They share its bucket, and none of them comes twice in it.
        """
        add, rows = self._entries.append, 0
        for bucket, outcomes in normalised.valid:
            flow, place = self._entry(bucket)
            keys = tuple(outcomes)
            if not keys:
                continue
            numbers = flow.told.get(keys) or self._numbers(flow, keys)
            try:
                figures = [_pack_sound(it.outcome_count, 8, it.percent_of_total) for it in outcomes.values()]
            except struct.error:  # a share is not told
                told = [_figure(it.outcome_count, it.percent_of_total) for it in outcomes.values()]
                self._add(numbers, _NO_PART, place.reported, told)
            else:
                add(_Entry(numbers, _NO_PART, place.sound, b"".join(figures)))
                rows += len(keys)
            place.rows += len(keys)
        self.rows += rows
        self.held += rows * _SOUND + _OVERHEAD * len(normalised.valid)
        for _, together in groupby(normalised.rows, key=lambda row: id(row.bucket)):
            self._add_rows(list(together))

    def _add_rows(self, rows: Sequence[OutcomeRow]) -> None:
        bucket = rows[0].bucket
        flow, place = self._entry(bucket)
        self.parts = self.parts or bool(bucket.part)
        part = pack_text(bucket.part)
        for rejected in (False, True):
            told = [row for row in rows if row.rejected is rejected]
            keys = tuple(row.source_key for row in told)
            numbers = flow.told.get(keys) or self._numbers(flow, keys)
            figures = [_figure(it.outcome_count, it.outcome_percentage, it.success, it.failure) for it in told]
            self._add(numbers, part, place.rejected if rejected else place.reported, figures)
            place.rows += 0 if rejected else len(told)

    def _add(self, numbers: tuple[int, ...], part: bytes, at: bytes, figures: list[bytes]) -> None:
        """Keep figures of one entry, those together that are equally long."""
        for size in dict.fromkeys(map(len, figures)):
            which = [place for place, figure in enumerate(figures) if len(figure) == size]
            own = numbers if len(which) == len(numbers) else tuple(numbers[place] for place in which)
            self._entries.append(_Entry(own, part, at, b"".join(figures[place] for place in which)))
            self.held += size * len(own) + len(part) + _OVERHEAD
            self.held += 0 if own is numbers else _NUMBER * len(own)
        self.rows += len(figures)

    def _entry(self, bucket: FlowBucket) -> tuple[_Flow, _Bucket]:
        """Note that an entry has come."""
        flow = self._flows.get(bucket.flow_id)
        if flow is None:
            flow = _Flow(bucket.flow_id)
            if self._room():
                self._flows[bucket.flow_id] = flow
        place = self._buckets.get(bucket.start)
        if place is None:
            place = self._buckets[bucket.start] = _Bucket(bucket, 1 << len(self._buckets))
        if not self.repeats:
            self.repeats = bool(flow.seen & place.bit) or len(self._flows) * len(self._buckets) > _SEEN
            flow.seen |= place.bit
        return flow, place

    def _room(self) -> bool:
        """Whether more can be kept; what is not is taken as if it repeated."""
        self.repeats = self.repeats or self._known >= _NAMES
        return self._known < _NAMES

    def _numbers(self, flow: _Flow, keys: tuple[str, ...]) -> tuple[int, ...]:
        """The numbers of an entry's outcomes, kept for the next one that has the same."""
        numbers = tuple(flow.numbers.get(key) or self._number(flow, key) for key in keys)
        if self._told < _NAMES:
            flow.told[tuple(map(intern, keys))] = numbers  # each name once, however many pages spell it
            self._told += len(keys)
        else:
            self.held += _NUMBER * len(numbers)
        return numbers

    def _number(self, flow: _Flow, key: str) -> int:
        self.numbered += 1
        if self._room():
            flow.numbers[intern(key)] = self.numbered
            self._known += 1
        packed = begin(3, pack_int4(self.numbered), flow.text, pack_text(key))
        self._names.append(packed)
        self.held += len(packed) + _OBJECT
        return self.numbered

    def reported(self) -> dict[datetime, int]:
        """How many figures were reported, by bucket; those that came twice count twice."""
        return {start: bucket.rows for start, bucket in self._buckets.items() if bucket.rows}

    def sparse(self, buckets: int) -> list[int]:
        """The numbers that not each of so many buckets has, where nothing repeats."""
        times = self._count()
        return [number for number in range(1, self.numbered + 1) if times[number] < buckets]

    def _count(self) -> list[int]:
        """How often each number came, by number."""
        times = self._times + [0] * (self.numbered + 1 - len(self._times))
        for numbers, entries in Counter(entry.numbers for entry in self._entries).items():
            for number in numbers:
                times[number] += entries
        return times

    def packed(self, row_prefix: Callable[[int], bytes], *, parts: bool = False) -> Iterator[bytes]:
        """The rows, in pieces, entries in the order of what their first rows begin with.

        Args:
            row_prefix: what a row begins with, by its outcome's number.
            parts: whether their parts come before ``COLUMNS``.
        """
        self._entries.sort(key=lambda entry: row_prefix(entry.numbers[0]))
        last: tuple[int, ...] = ()
        rows: list[bytes] = []
        for entry in self._entries:
            if entry.numbers is not last:
                last, row_prefixes = entry.numbers, [row_prefix(number) for number in entry.numbers]
            shared, figures = entry.part + entry.shared if parts else entry.shared, entry.figures
            start, size = 0, len(figures) // len(last)
            for begun in row_prefixes:
                end = start + size
                rows += begun, shared, figures[start:end]
                start = end
            if len(rows) >= 3 * ROWS_PER_CHUNK:
                yield b"".join(rows)
                rows.clear()
        yield b"".join(rows)

    def packed_names(self) -> Iterator[bytes]:
        """The names that are not forgotten, in pieces."""
        for first in range(0, len(self._names), ROWS_PER_CHUNK):
            yield b"".join(self._names[first : first + ROWS_PER_CHUNK])

    def forget(self) -> None:
        """Let go of rows and names; numbers stay as they are."""
        if not self.repeats:
            self._times = self._count()
        self._entries, self._names, self.held = [], [], 0


def _figure(
    count: int | None, share: float | None, success: int | None = None, failure: int | None = None
) -> bytes:
    return pack_int8(success) + pack_int8(failure) + pack_int8(count) + pack_float8(share)

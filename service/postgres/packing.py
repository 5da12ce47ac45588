"""Rows as binary COPY sends them, packed as they come.

A packed row is a fraction of what it is made from, and making it takes a third of the driver's time: of an entry
the bucket is packed once, and a name goes once for the scan, with a number that its rows carry. The format is
PostgreSQL's own: https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import LiteralString

from service.model import FlowBucket, Normalised

COLUMNS: LiteralString = (
    "bucket_start, bucket_end, part, name_no, outcome_count, outcome_percentage, rejected, success_count,"
    " failure_count"
)
NAME_COLUMNS: LiteralString = "name_no, flow_id, source_key"
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NAMES = 32_768
"""Names kept with their numbers; those past so many get a new one each time."""
_SEEN = 2**25
"""Flows times buckets, of which it is kept, a bit for each, whether they came."""
_NULL = b"\xff\xff\xff\xff"
_NO_PART = bytes(4)
_pack_length = Struct("!i").pack
_pack_columns = Struct("!h").pack
_pack_int4 = Struct("!q").pack  # length and number in one
_pack_bucket = Struct("!hiqiq").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack
_pack_bool = Struct("!i?").pack
# A row of a sound entry: its bucket, which is no part, number, count, share; neither successes nor failures.
_pack_sound = Struct("!30sqiqid13s").pack
_NO_MORE = _pack_bool(1, False) + _NULL + _NULL


class _Flow:
    """A flow of the scan: its outcomes' numbers, and a bit for each bucket that it came with."""

    __slots__ = ("numbers", "seen", "text")

    def __init__(self, flow_id: str) -> None:
        self.text = _text(flow_id)
        self.numbers: dict[str, int] = {}
        self.seen = 0


class Packer:
    """Packs a scan's rows, in ``COLUMNS``, and the names that they are about, in ``NAME_COLUMNS``.

    Attributes:
        numbered: how many names there were in all; one may have come more than once.
        rows: how many were packed.
        parts: whether some row was a part of its outcome's figure.
        repeats: whether some outcome may have come twice in one bucket.
    """

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self.parts = False
        self.repeats = False
        self._flows: dict[str, _Flow] = {}
        self._buckets: dict[datetime, tuple[bytes, int]] = {}
        self.numbered = self.rows = 0
        self._known = 0

    def pack(self, normalised: Normalised) -> tuple[bytes, bytes]:
        """A page's rows, those of one entry one after the other, and the names that are new in it.

        Both are without header and trailer. Rows of one entry share its bucket; none of them comes twice in it.
        """
        packed: list[bytes] = []
        add = packed.append
        for bucket, outcomes in normalised.sound:
            flow, head = self._entry(bucket)
            numbers = flow.numbers
            for key, figure in outcomes.items():
                number = numbers.get(key) or self._number(flow, key)
                count, share = figure.outcome_count, figure.percent_of_total
                if share is None:
                    add(head + _pack_int4(number) + _pack_int8(8, count) + _NULL + _NO_MORE)
                else:
                    add(_pack_sound(head, number, 8, count, 8, share, _NO_MORE))
            self.rows += len(outcomes)
        last = None
        for row in normalised.rows:
            if row.bucket is not last:
                last = row.bucket
                flow, head = self._entry(last)
            number = flow.numbers.get(row.source_key) or self._number(flow, row.source_key)
            add(head + _pack_int4(number) + _int8(row.outcome_count) + _float8(row.outcome_percentage))
            add(_pack_bool(1, row.rejected) + _int8(row.success) + _int8(row.failure))
        self.rows += len(normalised.rows)
        names, self._names = self._names, []
        return b"".join(packed), b"".join(names)

    def _entry(self, bucket: FlowBucket) -> tuple[_Flow, bytes]:
        """Note that an entry has come; its flow, and what each of its rows begins with."""
        flow = self._flows.get(bucket.flow_id)
        if flow is None:
            flow = _Flow(bucket.flow_id)
            if self._room():
                self._flows[bucket.flow_id] = flow
        packed, bit = self._buckets.get(bucket.start) or self._bucket(bucket)
        if not self.repeats:
            self.repeats = bool(flow.seen & bit) or len(self._flows) * len(self._buckets) > _SEEN
            flow.seen |= bit
        if not bucket.part:
            return flow, packed + _NO_PART
        self.parts = True
        return flow, packed + _text(bucket.part)

    def _bucket(self, bucket: FlowBucket) -> tuple[bytes, int]:
        packed = _pack_bucket(9, 8, _since_epoch(bucket.start), 8, _since_epoch(bucket.end))
        known = self._buckets[bucket.start] = packed, 1 << len(self._buckets)
        return known

    def _room(self) -> bool:
        """Whether more can be kept; what is not is taken as if it repeated."""
        self.repeats = self.repeats or self._known >= _NAMES
        return self._known < _NAMES

    def _number(self, flow: _Flow, key: str) -> int:
        """Number an outcome, from one upwards; the number as a column, its length before it."""
        self.numbered += 1
        number = 4 << 32 | self.numbered
        if self._room():
            flow.numbers[key] = number
            self._known += 1
        self._names.append(_pack_columns(3) + _pack_int4(number) + flow.text + _text(key))
        return number


def _since_epoch(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


def _int8(value: int | None) -> bytes:
    return _NULL if value is None else _pack_int8(8, value)


def _float8(value: float | None) -> bytes:
    return _NULL if value is None else _pack_float8(8, value)

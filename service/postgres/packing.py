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
_NAMES = 65_536
"""Names kept with their numbers; past so many all are numbered anew."""
_SEEN = 2**25
"""Flows times buckets, of which it is kept, a bit for each, whether they came."""
_NULL = b"\xff\xff\xff\xff"
_NO_PART = bytes(4)
_pack_length = Struct("!i").pack
_pack_columns = Struct("!h").pack
_pack_int4 = Struct("!ii").pack
_pack_bucket = Struct("!hiqiq").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack
_pack_bool = Struct("!i?").pack
_NEITHER = _NULL + _pack_bool(1, False) + _NULL + _NULL  # share, successes nor failures
_pack_sound = Struct("!iiiqidi?ii").pack  # count and share, neither successes nor failures


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
        names: packed, those that were numbered since somebody took them from here; one may come twice in a scan.
        numbered: how many there were in all.
        rows: how many were packed.
        parts: whether some row was a part of its outcome's figure.
        repeats: whether some outcome may have come twice in one bucket.
    """

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.parts = False
        self.repeats = False
        self._flows: dict[str, _Flow] = {}
        self._buckets: dict[datetime, tuple[bytes, int]] = {}
        self.numbered = self.rows = 0
        self._known = 0

    def pack(self, normalised: Normalised) -> bytes:
        """A page's rows one after the other, without header and trailer; those of one entry share its bucket."""
        packed: list[bytes] = []
        add = packed.append
        for bucket, outcomes in normalised.sound:
            flow, head = self._entry(bucket)
            numbers = flow.numbers
            for key, figure in outcomes.items():
                number = numbers.get(key) or self._number(flow, key)
                count, share = figure.outcome_count, figure.percent_of_total
                if share is None:
                    add(head + _pack_int4(4, number) + _pack_int8(8, count) + _NEITHER)
                else:
                    add(head + _pack_sound(4, number, 8, count, 8, share, 1, False, -1, -1))
            self.rows += len(outcomes)
        last = None
        for row in normalised.rows:
            if row.bucket is not last:
                last = row.bucket
                flow, head = self._entry(last)
            number = flow.numbers.get(row.source_key) or self._number(flow, row.source_key)
            add(head + _pack_int4(4, number) + _int8(row.outcome_count) + _float8(row.outcome_percentage))
            add(_pack_bool(1, row.rejected) + _int8(row.success) + _int8(row.failure))
        self.rows += len(normalised.rows)
        return b"".join(packed)

    def _entry(self, bucket: FlowBucket) -> tuple[_Flow, bytes]:
        """Note that an entry has come; its flow, and what each of its rows begins with."""
        flow = self._flows.get(bucket.flow_id)
        if flow is None:
            flow = self._flows[bucket.flow_id] = _Flow(bucket.flow_id)
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

    def _number(self, flow: _Flow, key: str) -> int:
        """Number an outcome, from one upwards."""
        if self._known >= _NAMES:
            self._known, self.repeats = 0, True
            self._flows.clear()
        self._known += 1
        self.numbered += 1
        flow.numbers[key] = self.numbered
        self.names.append(_pack_columns(3) + _pack_int4(4, self.numbered) + flow.text + _text(key))
        return self.numbered


def _since_epoch(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


def _int8(value: int | None) -> bytes:
    return _NULL if value is None else _pack_int8(8, value)


def _float8(value: float | None) -> bytes:
    return _NULL if value is None else _pack_float8(8, value)

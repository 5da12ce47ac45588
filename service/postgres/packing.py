"""Rows as binary COPY sends them, packed as they come.

A packed row is a third of the tuple that it is made from, and making it takes a third of the driver's time: of an
entry flow, bucket and part are packed once, and a name once for all. The format is PostgreSQL's own:
https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct

from service.model import OutcomeRow

COLUMNS = (
    "flow_id, bucket_start, bucket_end, part, source_key, outcome_count, outcome_percentage, rejected,"
    " success_count, failure_count"
)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_REMEMBERED = 8192
_NULL = b"\xff\xff\xff\xff"
_pack_length = Struct("!i").pack
_pack_columns = Struct("!h").pack
_pack_bucket = Struct("!iqiq").pack
_pack_int8 = Struct("!iq").pack
_pack_float8 = Struct("!id").pack
_pack_bool = Struct("!i?").pack
_pack_usual = Struct("!iqidi?ii").pack  # count and share, neither successes nor failures


class Packer:
    """Packs rows of ``COLUMNS``.

    Attributes:
        parts: whether some row was a part of its outcome's figure.
    """

    def __init__(self) -> None:
        self.parts = False
        self._names: dict[str, bytes] = {}

    def pack(self, rows: Iterable[OutcomeRow]) -> bytes:
        """The rows one after the other, without header and trailer."""
        names = self._names
        packed: list[bytes] = []
        add = packed.append
        head, bucket, last_flow, last_start, last_part = b"", b"", None, None, None
        for flow_id, start, end, key, count, share, rejected, success, failure, part in rows:
            if flow_id is not last_flow or start is not last_start or part is not last_part:
                if start is not last_start:
                    bucket = _pack_bucket(8, _since_epoch(start), 8, _since_epoch(end))
                last_flow, last_start, last_part = flow_id, start, part
                self.parts = self.parts or part != ""
                head = _pack_columns(10) + _text(flow_id) + bucket + _text(part)
            name = names.get(key) or self._name(key)
            if share is not None and success is None and count is not None:
                add(head + name + _pack_usual(8, count, 8, share, 1, rejected, -1, -1))
            else:
                add(head + name + _int8(count) + _float8(share) + _pack_bool(1, rejected))
                add(_int8(success) + _int8(failure))
        return b"".join(packed)

    def _name(self, key: str) -> bytes:
        if len(self._names) >= _REMEMBERED:
            self._names.clear()
        packed = self._names[key] = _text(key)
        return packed


def _since_epoch(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def _text(text: str) -> bytes:
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


def _int8(value: int | None) -> bytes:
    return _NULL if value is None else _pack_int8(8, value)


def _float8(value: float | None) -> bytes:
    return _NULL if value is None else _pack_float8(8, value)

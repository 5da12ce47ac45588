"""JSON values as figures: valid counts and shares, and short texts for error messages. Pure."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TypeGuard

from service.model import COUNT_MAX, INVALID_DURATION, Duration, DurationStats

_SHOWN_CHARACTERS = 40
_SHOWN_BITS = 256


def whole_number(value: object) -> int | None:
    """A whole number from 0 to 2^63-1, in any spelling (145, 145.0, 1.45e2); None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if not (math.isfinite(value) and value.is_integer()):
            return None
        value = int(value)
    return value if isinstance(value, int) and 0 <= value <= COUNT_MAX else None


def is_number(value: object) -> TypeGuard[int | float | Decimal]:
    """Whether the value is a JSON number."""
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def share_of(value: object) -> float | None:
    """A share from 0 to 1; None for anything else."""
    return float(value) if is_number(value) and 0 <= value <= 1 else None


def duration_of(stats: DurationStats | None) -> Duration | None:
    """Durations in whole milliseconds; None where there are none, ``INVALID_DURATION`` where they are invalid."""
    if stats is None:
        return None
    times, total = whole_number(stats.count), _milliseconds(stats.sum)
    if times == 0:
        return None
    shortest, longest = _milliseconds(stats.min), _milliseconds(stats.max)
    given_invalid = (stats.min is not None and shortest is None) or (stats.max is not None and longest is None)
    if times is None or total is None or given_invalid:
        return INVALID_DURATION
    return Duration(times, total, shortest, longest)


def _milliseconds(value: object) -> int | None:
    """A number from 0 to 2^63-1, rounded; None for anything else."""
    if not is_number(value) or not 0 <= value <= COUNT_MAX:
        return None
    return min(round(value), COUNT_MAX)


def shown(value: object) -> str:
    """A JSON value in at most some 40 printable characters."""
    if isinstance(value, str):
        return ascii(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…")
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return "a very long number"
    return str(value)[:_SHOWN_CHARACTERS]

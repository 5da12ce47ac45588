"""How the reference model adds figures up: by name and dimensions, and shares of a flow's total."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from service.model import Duration

COUNT_MAX = 2**63 - 1


@dataclass(frozen=True)
class Value:
    """What a scan reports for a key; a count of None is a rejected one."""

    count: int | None
    percentage: float | None = None
    success: int | None = None
    failure: int | None = None
    executions: int | None = None
    duration: Duration | None = None


@dataclass(frozen=True)
class Shown:
    """A row of ``flow_outcome`` or ``flow_outcome_detail``."""

    count: int | None
    percentage: float | None
    share: float | None
    success: int | None = None
    failure: int | None = None
    rate: float | None = None
    duration: tuple[int | None, ...] = (None,) * 4


def durations(values: Iterable[Value]) -> tuple[int | None, ...]:
    """Count, sum, minimum and maximum; all unknown where one is invalid or a sum does not fit a bigint."""
    given = [value.duration for value in values if value.duration is not None]
    times, total = sum(each.times for each in given), sum(each.sum_ms or 0 for each in given)
    if not given or any(each.times < 0 for each in given) or max(times, total) > COUNT_MAX:
        return (None,) * 4
    shortest, longest = [each.min_ms for each in given], [each.max_ms for each in given]
    return (
        times,
        total,
        None if None in shortest else min(each for each in shortest if each is not None),
        None if None in longest else max(each for each in longest if each is not None),
    )


def _split(parts: list[int | None], *, known: bool) -> int | None:
    """The sum of a split, where each figure has it."""
    total = sum(part or 0 for part in parts)
    return total if known and parts and None not in parts and total <= COUNT_MAX else None


Group = tuple[str, str]


def fold(rows: Mapping[Group, list[tuple[str, Value]]]) -> dict[Group, Shown]:
    """The rows of one bucket of one flow: figures added by name and dimensions, and shares of the flow's total."""
    folded: dict[Group, Shown] = {}
    total: int | None = 0
    for row, figures in rows.items():
        known = [value for _, value in figures if value.count is not None]
        count = sum(value.count or 0 for value in known)
        valid = not any(state == "rejected" for state, _ in figures)
        shares = [value.percentage for value in known if value.percentage is not None]
        success = _split([value.success for value in known], known=valid)
        shown = count if valid and count <= COUNT_MAX and known else None
        folded[row] = Shown(
            count=shown,
            percentage=math.fsum(shares) if valid and known and len(shares) == len(known) else None,
            share=None,
            success=success,
            failure=_split([value.failure for value in known], known=valid),
            rate=float(success) / float(shown) if success is not None and shown else None,
            duration=durations(known) if valid else (None,) * 4,
        )
        total = total + count if total is not None and valid and count <= COUNT_MAX else None
    return {
        row: replace(shown, share=float(shown.count) / float(total))
        if shown.count is not None and total
        else shown
        for row, shown in folded.items()
    }

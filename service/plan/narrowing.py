"""How wide the next query is, after queries that were too wide: the one rule for both APIs.

A gateway or an engine may limit what one query covers, and say so in words that nobody foresaw. A width is a
number of buckets. After a refusal the next query covers one window, or the widest that was served in this cycle;
then the rule looks for the widest that passes, by halves between the two. One bucket that is refused shows that
width is not the cause. A refused span is not requested again in its cycle: only narrower ones of it are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import Enum, auto
from http import HTTPStatus
from itertools import accumulate

from service.errors import ExtractionError, QueryRefusedError, QueryTimeoutError, QueryTooLargeError
from service.model import QueryWidth

KEEP = timedelta(days=7)
"""How long a width is kept; then one query twice as wide is sent."""
FAILURES_MAX = 3
"""Narrower queries that may fail in a row. Then a width that is known to pass comes next; where none is known,
what a gateway may have caused counts for the breaker again."""
_CYCLES_MAX = 32
"""Cycles whose refusals are remembered; more do not run side by side."""

Refusal = tuple[int | None, str | None]
"""Status and code of a refusal."""


class Cause(Enum):
    """What the failure of a query means for its width."""

    SIZE = auto()
    """The API names the size or the cardinality of the response: the query is halved."""
    WIDTH = auto()
    """Width may be the cause: a 400 in unforeseen words, or a gateway."""
    TIMEOUT = auto()
    """The query ran into ``query_timeout``: it is narrower in the next cycle."""
    OTHER = auto()
    """Width is not the cause."""


def cause_of(error: ExtractionError) -> Cause:
    """What an error of a query means for its width."""
    if isinstance(error, QueryTooLargeError):
        return Cause.SIZE
    if isinstance(error, QueryTimeoutError):
        return Cause.TIMEOUT
    return Cause.WIDTH if error.of_gateway or isinstance(error, QueryRefusedError) else Cause.OTHER


class WidthPolicy:
    """The widths of one org's queries at one granularity.

    Cycles are identified by their ids, and several may run side by side.

    Args:
        learned: what earlier cycles learned; None for nothing.
    """

    def __init__(self, learned: QueryWidth | None = None) -> None:
        self.learned = learned
        self._before: tuple[str, QueryWidth | None] = ("", None)
        self._exhausted: dict[str, set[Refusal]] = {}
        self._widest: tuple[str, int] = ("", 0)
        self._search = ""
        self._trial = ""
        self._refused_in_a_row = 0
        self._narrower_failures = 0

    def limit(self, remaining: int, window: int, cycle: str, now: datetime) -> int:
        """The buckets that the next query covers at most.

        Args:
            remaining: the buckets that are to be requested, side by side.
            window: the buckets of the first window among them.
            cycle: the cycle's id.
            now: the time.

        Returns:
            From 1 to ``remaining``. A result above the width that is known to pass is a trial: there is one at a
            time, until ``served`` or ``failed`` is called for it.
        """
        learned = self.learned
        if learned is None or (learned.served is None and (learned.refused is None or _expired(learned, now))):
            return remaining
        if learned.served is None:
            refused = learned.refused or 0
            return min(remaining, window if window < refused else max(1, refused // 2))
        if remaining <= learned.served:
            return remaining
        trial = self._trial_width(learned, learned.served, window, cycle, now)
        if trial is None or self._trial == cycle or self._refused_in_a_row >= FAILURES_MAX:
            return learned.served
        self._trial = cycle
        return min(remaining, trial)

    def take(self, widths: Sequence[int], cycle: str, now: datetime, limit: int | None = None) -> int:
        """How many adjacent windows the next query covers, at least one.

        Args:
            widths: the buckets of each window.
            cycle: the cycle's id.
            now: the time.
            limit: the most buckets, where the same windows were refused before; None for no limit of their own.
        """
        served = self.learned.served if self.learned else None
        if len(widths) == 1 or (served is not None and served < widths[0]):
            return 1
        most = self.limit(sum(widths), widths[0], cycle, now)
        most = most if limit is None else min(most, limit)
        return max(1, sum(total <= most for total in accumulate(widths)))

    def is_settled(self, window: int, cycle: str, now: datetime) -> bool:
        """Whether no wider query is to be tried, for windows of so many buckets."""
        learned = self.learned
        if learned is None or (learned.served is None and learned.refused is None):
            return True
        return (
            learned.served is not None and self._trial_width(learned, learned.served, window, cycle, now) is None
        )

    def _trial_width(self, learned: QueryWidth, served: int, window: int, cycle: str, now: datetime) -> int | None:
        """The width to try above the one that is known to pass; None for none."""
        if _expired(learned, now):
            return 2 * served
        if self._search != cycle or learned.refused is None:
            return None
        unit = window if window <= served else 1
        low, high = served // unit, -(-learned.refused // unit)
        middle = (low + high) // 2
        # below two thirds of what was refused, a wider one saves more queries than the search costs
        return middle * unit if middle > low and 2 * high > 3 * low else None

    def served(self, width: int, cycle: str) -> bool:
        """Record a query that was served; whether this changed what was learned."""
        learned = self.learned
        self._end_trial(width)
        self._refused_in_a_row = 0
        self._narrower_failures = 0
        widest = self._widest[1] if self._widest[0] == cycle else 0
        self._widest = cycle, max(widest, width)
        if learned is None:
            return False
        if learned.first_in is not None and learned.first_in != cycle:
            learned = learned._replace(first_in=None)
        known = learned.served or 0
        if learned.refused is not None and known < width < learned.refused:
            learned = learned._replace(served=width)
        elif learned.served is not None and width > known:  # the query twice as wide
            learned = learned._replace(served=width, refused=None)
        changed = learned != self.learned
        self.learned = learned
        return changed

    def failed(self, width: int, error: ExtractionError, cycle: str, now: datetime) -> bool:
        """Record a query that failed; whether narrower queries are to replace it in this cycle.

        A caller stores ``learned`` afterwards.
        """
        self._end_trial(width)
        cause = cause_of(error)
        if cause is Cause.TIMEOUT and width > 1:
            self._refuse(width, now)
        if cause is not Cause.WIDTH:
            return False
        refusal = error.status, error.code
        if width <= 1:
            self._exhaust(refusal, cycle, now)
            return False
        if refusal in self._exhausted.get(cycle, ()):
            return False
        learned = self.learned
        if error.of_gateway and self._is_narrower(width):
            self._narrower_failures += 1
        if not (learned and learned.served and width > learned.served and _expired(learned, now)):
            self._search = cycle
        self._refuse(width, now, self._widest[1] if self._widest[0] == cycle else 0)
        self._refused_in_a_row += 1
        if self._before[0] != cycle:
            self._before = cycle, learned
        return True

    def _end_trial(self, width: int) -> None:
        if self.learned is None or self.learned.served is None or width > self.learned.served:
            self._trial = ""

    def _refuse(self, width: int, now: datetime, widest: int = 0) -> None:
        """Learn that a width is refused; ``widest`` is known to pass, unless it is wider."""
        learned = self.learned or QueryWidth(None, None, now)
        served = learned.served or widest or None
        refused = min(width, learned.refused or width) if not _expired(learned, now) else width
        if served is not None and served >= refused:
            served = None
        self.learned = learned._replace(served=served, refused=refused, learned_at=now)

    def _exhaust(self, refusal: Refusal, cycle: str, now: datetime) -> None:
        """One bucket was refused, so width is not the cause: forget what this cycle learned."""
        self._exhausted.setdefault(cycle, set()).add(refusal)
        if len(self._exhausted) > _CYCLES_MAX:
            del self._exhausted[next(iter(self._exhausted))]
        if self._before[0] == cycle:
            self.learned = self._before[1]
        self.learned = (self.learned or QueryWidth(None, None, now))._replace(first_in=cycle)

    def begins_with_one_window(self, cycle: str) -> bool:
        """Whether a cycle requests one window before all others: in an earlier one, one bucket was refused."""
        return self.learned is not None and self.learned.first_in not in (None, cycle)

    def is_exhausted(self, cycle: str) -> bool:
        """Whether one bucket was refused in this cycle."""
        return cycle in self._exhausted

    def is_narrowable(self, width: int, cycle: str) -> bool:
        """Whether a narrower query may replace one of this width after what a gateway may have caused."""
        return width > 1 and all(status == HTTPStatus.BAD_REQUEST for status, _ in self._exhausted.get(cycle, ()))

    def counts_for_breaker(self, width: int, cycle: str) -> bool:
        """Whether what a gateway may cause in a query of this width counts for the org's breaker."""
        if not self.is_narrowable(width, cycle):
            return True
        in_a_row = self._is_narrower(width) and self._narrower_failures + 1 >= FAILURES_MAX
        return in_a_row and self.learned is not None and self.learned.served is None

    def _is_narrower(self, width: int) -> bool:
        refused = self.learned.refused if self.learned else None
        return refused is not None and width < refused


def known_width(learned: QueryWidth | None) -> int | None:
    """The width that passes, of what was learned; None where there is no limit."""
    if learned is None:
        return None
    return learned.served or (None if learned.refused is None else 1)


def _expired(learned: QueryWidth, now: datetime) -> bool:
    return now - learned.learned_at >= KEEP

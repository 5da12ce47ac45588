"""Windows and scans."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from service.errors import NotSettledError
from service.model.measures import Measure
from service.model.queries import Query
from service.model.spans import Granularity, Span, instant


@dataclass(frozen=True, slots=True)
class Window:
    """A span to extract, and how to query it.

    Attributes:
        org: the org's name.
        stream: the window's group in the ledger: ``job:NAME`` for a job's windows, ``ad hoc`` for all others.
        job: the job's name; None for ad hoc work.
        span: begins and ends on bucket edges of ``granularity``.
        requested: ``hourly``, ``daily``, ``monthly`` or ``auto``, as configured.
        granularity: the granularity of its queries.
        due_at: the first instant at which it may be queried, in UTC.
        coarsened: whether the server rejected it one step finer; it is coarsened only once.
        measure: what its queries measure.
    """

    org: str
    stream: str
    job: str | None
    span: Span
    requested: str
    granularity: Granularity
    due_at: datetime
    coarsened: bool = False
    measure: Measure = Measure.OUTCOMES

    @property
    def request(self) -> tuple[Span, str, Measure]:
        """What identifies it among the windows of its stream."""
        return self.span, self.requested, self.measure


@dataclass(frozen=True, slots=True)
class Scan:
    """Adjacent windows of one stream that are queried and stored together.

    Attributes:
        windows: in order of time.
        queries: together they cover the windows' spans exactly.
        expect_for: how long an outcome is expected after it was last seen.
        delay: how long after its end a window settles.
    """

    windows: tuple[Window, ...]
    queries: tuple[Query, ...]
    expect_for: timedelta
    delay: timedelta = timedelta(0)

    @property
    def org(self) -> str:
        """The org's name."""
        return self.windows[0].org

    @property
    def granularity(self) -> Granularity:
        """The granularity of all its windows."""
        return self.windows[0].granularity

    @property
    def measure(self) -> Measure:
        """What all its windows measure."""
        return self.windows[0].measure

    @property
    def group_by(self) -> tuple[str, ...]:
        """The dimensions by which its figures are split, sorted."""
        return self.queries[0].group_by

    @property
    def span(self) -> Span:
        """From the first window's start to the last window's end."""
        return Span(self.windows[0].span.start, self.windows[-1].span.end)

    def check_settled(self, now: datetime) -> None:
        """Check that each window's end plus the delay has passed.

        Args:
            now: the time by the deciding clock.

        Raises:
            NotSettledError: a window has not settled; the error holds the number of windows before it.
        """
        for settled, window in enumerate(self.windows):
            settles_at = window.span.end + self.delay
            if settles_at > now:
                raise NotSettledError(
                    f"not settled: the window settles at {instant(settles_at)}, and the API's clock shows"
                    f" {instant(now)}",
                    settled=settled,
                    seconds=(settles_at - now).total_seconds(),
                )

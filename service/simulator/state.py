"""The simulator's state: its orgs, its clock, the requests it received."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from service.clock import Clock, SystemClock
from service.simulator.buckets import TimeGroup, split_buckets
from service.simulator.faults import Fault
from service.simulator.flow_measures import GroupKey, Stats, Tally
from service.simulator.instants import Now, to_datetime, to_milliseconds
from service.simulator.limits import peak_per_second
from service.simulator.oauth import Tokens
from service.simulator.organisation import LiveOrg, SimulatorConfig
from service.simulator.pages import open_scan

_ARRIVALS = 200_000


@dataclass(slots=True)
class Arrival:
    """A received request; all but ``at``, ``path`` and ``kind`` are set while it is answered.

    Attributes:
        at: when it arrived, in seconds of the pacing clock.
        path: the requested path.
        kind: ``token``, ``query``, ``aggregates``, ``jobs``, ``names``, ``settings``, ``moved`` (a followed
            redirect) or ``other``.
        org: the client id, or None if it is unknown.
        digest: a digest of the query without its page token; empty for other requests.
        page: the page of the scan, from 1; 0 for other requests.
        status: status of the response; 0 if the connection broke first.
    """

    at: float
    path: str
    kind: str
    org: str | None = None
    digest: str = ""
    page: int = 0
    status: int = 0


class Measure(NamedTuple):
    """What one figure of the flow-aggregates API is about.

    Attributes:
        group: the values of the requested dimensions, in their order; None where the group lacks one.
        bucket_start: start of the bucket, UTC.
        metric: name of the metric.
    """

    group: GroupKey
    bucket_start: datetime
    metric: str


class SimulatorState:
    """The simulated orgs and what the simulator recorded.

    Args:
        config: the simulated orgs.
        clock: its wall time decides what has happened and settled, its monotonic time what has expired.
        pace: the clock that counts requests, in seconds.
    """

    def __init__(self, config: SimulatorConfig | None, clock: Clock | None, pace: Callable[[], float]) -> None:
        self.config = config or SimulatorConfig()
        self.clock: Clock = clock or SystemClock()
        self.shift = timedelta(0)
        self.orgs = {
            client_id: LiveOrg(client_id, settings, self.config.seed)
            for client_id, settings in self.config.orgs.items()
        }
        self.arrivals: deque[Arrival] = deque(maxlen=_ARRIVALS)
        self.tokens = Tokens()
        self._pace = pace

    def now(self) -> datetime:
        """The simulated wall time."""
        return self.clock.now() + self.shift

    def set_now(self, at: datetime) -> None:
        """Set the simulated wall time; it runs on from there."""
        self.shift = at - self.clock.now()

    @property
    def fired(self) -> Counter[str]:
        """How often each fault fired, over all orgs."""
        return sum((org.fired for org in self.orgs.values()), Counter())

    @property
    def in_flight_violations(self) -> int:
        """How many queries arrived while the same query was in flight."""
        return sum(org.single_flight.violations for org in self.orgs.values())

    @property
    def hold_violations(self) -> int:
        """How many requests arrived before the Retry-After of a 429 had passed."""
        return sum(org.retry_after_watch.violations for org in self.orgs.values())

    @property
    def tokens_issued(self) -> int:
        """How many access tokens were issued."""
        return self.tokens.issued

    def revoke_tokens(self, client_id: str | None = None) -> None:
        """Invalidate the access tokens of a client, or of all clients."""
        self.tokens.revoke(client_id)

    def switch(self, name: str, fault: Fault | None, *, org: str | None = None) -> None:
        """Turn a fault on or off, in one org or in all; raises KeyError for an unknown fault or org."""
        for live in self.orgs.values() if org is None else (self.orgs[org],):
            live.fault_plan.switch(name, fault)

    def peak_per_second(self, org: str | None = None) -> int:
        """Return the most requests in any second, wherever it begins, of one org or of the busiest one."""
        if org is None:
            return max((self.peak_per_second(client_id) for client_id in self.orgs), default=0)
        return peak_per_second(arrival.at for arrival in self.arrivals if arrival.org == org)

    def truth(
        self,
        span_start: datetime,
        span_end: datetime,
        granularity: TimeGroup,
        timezone: str | None = None,
        *,
        flows: Sequence[str] | None = None,
        at: datetime | None = None,
        org: str | None = None,
    ) -> Mapping[tuple[str, datetime, str], tuple[int, float]]:
        """Return the org's figures directly from its contact centre.

        Args:
            span_start: start of the span, aware.
            span_end: end of the span, aware; the first and the last bucket are truncated to the span.
            granularity: ``hourly``, ``daily`` or ``monthly``.
            timezone: IANA name; None for the org's.
            flows: flow ids; None for all.
            at: the figures as visible at this instant; None for now.
            org: a client id; None for the first org.

        Returns:
            Count and percentOfTotal by (flow id, start of the bucket in UTC, outcome name).
        """
        live = self.orgs[org] if org is not None else next(iter(self.orgs.values()))
        scan = open_scan(
            live.centre,
            start=to_milliseconds(span_start),
            end=to_milliseconds(span_end),
            step=granularity,
            timezone=live.timezone if timezone is None else ZoneInfo(timezone),
            at=to_milliseconds(at or self.now()),
            flows=None if flows is None else frozenset(flows),
            percent_of=live.settings.percent_of,
        )
        return {
            (flow, to_datetime(start), name): (int(str(figure["count"])), float(str(figure["percentOfTotal"])))
            for flow, (start, _), outcomes in scan.figures()
            for name, figure in outcomes.items()
        }

    def measure(
        self,
        span: tuple[datetime, datetime],
        granularity: TimeGroup,
        group_by: Sequence[str],
        metrics: Sequence[str],
        timezone: str | None = None,
        *,
        flows: Sequence[str] | None = None,
        at: datetime | None = None,
        org: str | None = None,
    ) -> Mapping[Measure, Stats]:
        """Return what the flow-aggregates API reports, directly from the org's contact centre.

        Args:
            span: start and end, aware; the first and the last bucket are truncated to it.
            granularity: ``hourly``, ``daily`` or ``monthly``.
            group_by: names of dimensions.
            metrics: names of metrics.
            timezone: IANA name; None for the org's.
            flows: flow ids; None for all.
            at: the figures as visible at this instant; None for now.
            org: a client id; None for the first org.
        """
        live = self.orgs[org] if org is not None else next(iter(self.orgs.values()))
        start, end = (to_milliseconds(edge) for edge in span)
        zone = live.timezone if timezone is None else ZoneInfo(timezone)
        visible = to_milliseconds(at or self.now())
        tally = Tally(group_by, metrics, live.division_id_of)
        return {
            Measure(key, to_datetime(bucket[0]), metric): stats
            for flow in live.centre.flows()
            if flows is None or flow.id in flows
            for bucket in split_buckets(start, end, granularity, zone)
            for (key, metric), stats in tally.bucket(live.centre, flow, bucket, visible).items()
        }

    def _read_clocks(self) -> Now:
        return Now(to_milliseconds(self.now()), self._pace(), self.clock.monotonic())

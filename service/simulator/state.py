"""The simulator's state: its orgs, its clock, the requests that came."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from service.clock import Clock, SystemClock
from service.simulator.buckets import TimeGroup
from service.simulator.faults import Fault
from service.simulator.instants import Now, milliseconds, moment
from service.simulator.limits import peak_per_second
from service.simulator.oauth import Tokens
from service.simulator.organisation import LiveOrg, SimulatorConfig
from service.simulator.pages import open_scan

_ARRIVALS = 200_000


@dataclass(slots=True)
class Arrival:
    """A request as it came; what is not known yet fills in as it is answered.

    Attributes:
        at: seconds of the pacing clock, taken before anything else.
        path: what was asked for.
        kind: ``token``, ``query``, ``aggregates``, ``jobs``, ``names``, ``moved`` (a redirect that was followed)
            or ``other``.
        org: the client id, or None where it cannot be told.
        digest: of the query without its page token; empty for anything else.
        page: of the scan, from 1; 0 for anything else.
        status: as answered; 0 where the connection broke first.
    """

    at: float
    path: str
    kind: str
    org: str | None = None
    digest: str = ""
    page: int = 0
    status: int = 0


class SimulatorState:
    """What is simulated, and what came of it: the server works on it, its own endpoints show it.

    Args:
        config: what is simulated.
        clock: wall time decides what has happened and settled; monotonic time what has expired.
        pace: the clock by which requests are counted, in seconds.
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
        """Set the simulated wall time; it goes on from there."""
        self.shift = at - self.clock.now()

    @property
    def fired(self) -> Counter[str]:
        """How often each fault struck, over all orgs."""
        return sum((org.fired for org in self.orgs.values()), Counter())

    @property
    def in_flight_violations(self) -> int:
        """How often a query was asked while the same one was still being answered."""
        return sum(org.flight.violations for org in self.orgs.values())

    @property
    def hold_violations(self) -> int:
        """How many requests came before the Retry-After of a 429 had passed."""
        return sum(org.hold.violations for org in self.orgs.values())

    @property
    def tokens_issued(self) -> int:
        """How many access tokens were given out."""
        return self.tokens.issued

    def revoke_tokens(self, client_id: str | None = None) -> None:
        """Make the access tokens of a client, or all, worthless from now on."""
        self.tokens.revoke(client_id)

    def switch(self, name: str, fault: Fault | None, *, org: str | None = None) -> None:
        """Turn a fault on or off, in one org or in all; KeyError for an unknown fault or org."""
        for live in self.orgs.values() if org is None else (self.orgs[org],):
            live.faults.switch(name, fault)

    def peak_per_second(self, org: str | None = None) -> int:
        """The most requests in any second, wherever it began; of one org, or of the busiest one."""
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
        """What the org's figures are, straight from its centre.

        Args:
            span_start: of the span, aware.
            span_end: likewise; buckets at either end are cut to the span.
            granularity: ``hourly``, ``daily`` or ``monthly``.
            timezone: IANA name; None is the org's.
            flows: flow ids; None is all.
            at: as seen at this instant; None is now.
            org: a client id; None is the first.

        Returns:
            count and percentOfTotal by (flow id, the bucket's start in UTC, outcome name).
        """
        live = self.orgs[org] if org is not None else next(iter(self.orgs.values()))
        scan = open_scan(
            live.centre,
            start=milliseconds(span_start),
            end=milliseconds(span_end),
            step=granularity,
            timezone=live.timezone if timezone is None else ZoneInfo(timezone),
            at=milliseconds(at or self.now()),
            flows=None if flows is None else frozenset(flows),
            percent_of=live.settings.percent_of,
        )
        return {
            (flow, moment(start), name): (int(str(figure["count"])), float(str(figure["percentOfTotal"])))
            for flow, (start, _), outcomes in scan.figures()
            for name, figure in outcomes.items()
        }

    def _hands(self) -> Now:
        return Now(milliseconds(self.now()), self._pace(), self.clock.monotonic())

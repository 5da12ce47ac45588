"""Simulated organisations: credentials, contact centre, limits and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias
from uuid import UUID
from zoneinfo import ZoneInfo

from service.simulator.centre import Centre, Flow, GeneratedCentre
from service.simulator.cursors import Cursors
from service.simulator.faults import FaultPlan, Faults
from service.simulator.instants import DAY
from service.simulator.limits import MinuteLimit, RateLimit, RetryAfterWatch, SingleFlightWatch
from service.simulator.pages import Order, PercentOf, Position
from service.simulator.record_traits import milestone_id
from service.simulator.restricted_centre import NightlyCentre, RestrictedCentre
from service.simulator.sample_names import MILESTONES

HOME = "Home"
"""The division that every org has."""

SIMULATED_SECRET = "simulated-secret"  # noqa: S105 - of a simulation


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedOrg:
    """One organisation.

    Attributes:
        client_secret: secret of the OAuth client.
        centre: the contact centre; None generates one from ``seed``, ``flows`` and ``outcomes``.
        flows: number of generated flows.
        outcomes: number of outcomes per generated flow.
        seed: seed of the generated centre; None derives one from the simulator's seed and the client id.
        timezone: IANA name of the reporting time zone.
        requests_per_second: limit in any second, token requests included; None for no limit.
        retry_after: Retry-After of a 429, in whole seconds.
        token_lifetime: ``expires_in`` of a token, in seconds.
        cursor_lifetime: seconds for which a page token is valid.
        cursor_expired_status: status of the response to an expired page token, 410 or 400.
        permitted: whether the role has ``analytics:query:read`` and ``analytics:flowAggregate:view``.
        names_permitted: whether the role has ``architect:flow:view``, ``architect:flowOutcome:view`` and
            ``architect:flowMilestone:view``.
        deleted_flows: how many flows, the last ones, are deleted: they have figures, and are listed on demand.
        requests_per_minute: limit of the public API, sent in its headers; None for no limit and no headers.
        extra_dimension: whether groups are split by mediaType although the query does not request it.
        job_polls: how often a job's state is QUEUED or PENDING before it is FULFILLED.
        job_lifetime: seconds until a job expires.
        granularity_limits: days for hourly, days for daily, calendar years for monthly.
        cardinality: maximum number of (flow, bucket) pairs of a query; None for no limit.
        result_limit: flow-aggregates only: the most groups times buckets of a response; None is no limit. Its
            error has the words that an operator saw.
        order: order of a scan: flow by flow, or bucket by bucket.
        percent_of: denominator of percentOfTotal: the flow's total in the bucket, or the query's.
        split_entries: whether each page's last entry is split over two pages.
        latency: seconds before each response.
        retention_days: how long records are kept, which the API also says; None for ever, and 404.
        retention_permitted: whether the role has ``analytics:dataRetention:view``.
        divisions: the org's divisions; the flows are spread over them in turn.
        permitted_divisions: those in which the client's role sees figures; None for all. Figures of flows in
            others are absent, and look like calls that nobody made.
        nightly_corrections: whether a nightly pipeline adds records to days that ended two or three days ago.
        faults: the initial fault switches.
    """

    client_secret: str = SIMULATED_SECRET
    centre: Centre | None = None
    flows: int = 12
    outcomes: int = 5
    seed: int | None = None
    timezone: str = "UTC"
    requests_per_second: int | None = 10
    retry_after: int = 1
    token_lifetime: float = 86_400
    cursor_lifetime: float = 600
    cursor_expired_status: int = 410
    permitted: bool = True
    names_permitted: bool = True
    deleted_flows: int = 0
    requests_per_minute: int | None = 300
    extra_dimension: bool = False
    job_polls: int = 2
    job_lifetime: float = 86_400
    granularity_limits: tuple[int, int, int] = (7, 365, 7)
    cardinality: int | None = None
    result_limit: int | None = None
    order: Order = "flow"
    percent_of: PercentOf = "flow"
    split_entries: bool = False
    latency: float = 0.0
    retention_days: int | None = None
    retention_permitted: bool = True
    divisions: tuple[str, ...] = (HOME,)
    permitted_divisions: tuple[str, ...] | None = None
    nightly_corrections: bool = False
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorConfig:
    """Configuration of the simulator.

    Attributes:
        orgs: the orgs, by client id.
        seed: seed of the generated figures.
        host: the address to listen on.
        port: the port to listen on; 0 for any free one.
    """

    orgs: Mapping[str, SimulatedOrg] = field(default_factory=lambda: {"acme": SimulatedOrg()})
    seed: int = 7
    host: str = "127.0.0.1"
    port: int = 0


PageKey: TypeAlias = tuple[str, str, Position]
"""A query's digest, the time zone of its buckets, and the position at which the page begins."""

CachedPage: TypeAlias = tuple[bytes, Position | None]
"""A page's JSON text without its token, and the position of the next page."""


class PageCache:
    """Pages that can no longer change; at most ``bound`` bytes of them."""

    def __init__(self, bound: int = 2**27) -> None:
        self._bound = bound
        self._bytes = 0
        self._pages: dict[PageKey, CachedPage] = {}

    def get(self, key: PageKey) -> CachedPage | None:
        """Return the page if it is cached."""
        return self._pages.get(key)

    def put(self, key: PageKey, page: CachedPage) -> None:
        """Add a page; if the cache is full, drop all others first."""
        if self._bytes + len(page[0]) > self._bound:
            self._pages.clear()
            self._bytes = 0
        self._pages[key] = page
        self._bytes += len(page[0])


class LiveOrg:
    """A running organisation: its settings and its state."""

    def __init__(self, client_id: str, settings: SimulatedOrg, seed: int) -> None:
        self.client_id = client_id
        self.settings = settings
        self.timezone = ZoneInfo(settings.timezone)
        self.centre: Centre = settings.centre or GeneratedCentre(
            _seed_of(client_id, seed) if settings.seed is None else settings.seed,
            settings.flows,
            settings.outcomes,
        )
        self._division_of = {
            flow.id: settings.divisions[place % len(settings.divisions)]
            for place, flow in enumerate(self.centre.flows())
        }
        self.centre = self._restricted(self.centre)
        self._milestones = {milestone_id(name): name for name in MILESTONES}
        self.rate_limit = RateLimit(settings.requests_per_second)
        self.minute_limit = MinuteLimit(settings.requests_per_minute)
        self.retry_after_watch = RetryAfterWatch()
        self.single_flight = SingleFlightWatch()
        self.cursors = Cursors(settings.cursor_lifetime, settings.cursor_expired_status)
        self.page_cache = PageCache()
        self.fired: Counter[str] = Counter()
        self.fault_plan = FaultPlan(settings.faults, self.fired)

    @property
    def permitted_divisions(self) -> tuple[str, ...]:
        """The divisions of the client's role."""
        permitted = self.settings.permitted_divisions
        return self.settings.divisions if permitted is None else permitted

    def division_of(self, flow_id: str) -> str:
        """Return the division of a flow; a flow that came later is in the first one."""
        return self._division_of.get(flow_id, self.settings.divisions[0])

    def division_id_of(self, flow_id: str) -> str:
        """Return the id of a flow's division."""
        return division_id(self.division_of(flow_id))

    def _restricted(self, centre: Centre) -> Centre:
        settings = self.settings
        if settings.nightly_corrections:
            centre = NightlyCentre(centre)
        permitted = self.permitted_divisions
        hidden = frozenset(flow for flow, name in self._division_of.items() if name not in permitted)
        if settings.retention_days is None and not hidden:
            return centre
        kept = None if settings.retention_days is None else settings.retention_days * DAY
        return RestrictedCentre(centre, kept, hidden)

    @property
    def milestones(self) -> Sequence[Flow]:
        """Every milestone of the org, with its present name."""
        return [Flow(*each) for each in self._milestones.items()]

    def rename_milestone(self, number: str, name: str) -> None:
        """Give a milestone another name; its id and its counts stay. Raises KeyError for an unknown id."""
        if number not in self._milestones:
            raise KeyError(number)
        self._milestones[number] = name


def division_id(name: str) -> str:
    """Return the id of a division."""
    if name == HOME:
        return "00000000-0000-4000-8000-000000000001"
    return str(UUID(bytes=blake2b(name.encode(), digest_size=16).digest(), version=4))


def _seed_of(client_id: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}:{client_id}".encode(), digest_size=6).digest(), "big")

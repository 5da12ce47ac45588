"""What is simulated: organisations, each with its credentials, centre, limits and faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias
from zoneinfo import ZoneInfo

from service.simulator.centre import Centre, GeneratedCentre
from service.simulator.cursors import Cursors
from service.simulator.faults import FaultPlan, Faults
from service.simulator.limits import Flight, Hold, Minute, Rate
from service.simulator.pages import Order, PercentOf, Position

SIMULATED_SECRET = "simulated-secret"  # noqa: S105 - it opens a simulation


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedOrg:
    """One organisation.

    Attributes:
        client_secret: of its OAuth client.
        centre: figures that are given; None generates them from ``seed``, ``flows``, ``outcomes``.
        flows: how many flows are generated.
        outcomes: how many outcomes each of them has.
        seed: of the generated centre; None derives one from the simulator's seed and the client id.
        timezone: IANA name of the reporting time zone.
        requests_per_second: in any second, tokens included; None is no limit.
        retry_after: whole seconds that a 429 tells.
        token_lifetime: seconds, told as ``expires_in``.
        cursor_lifetime: seconds for which a page token is good.
        cursor_expired_status: how an expired one is answered, 410 or 400.
        permitted: whether the role holds ``analytics:query:read`` and ``analytics:flowAggregate:view``.
        names_permitted: whether it holds ``architect:flow:view`` and ``architect:flowOutcome:view``.
        requests_per_minute: of the public API, told in its answers' headers; None is no limit, and no headers.
        extra_dimension: groups come split by mediaType, which nobody asked for.
        job_polls: how often a job's state is QUEUED or PENDING before it is FULFILLED.
        job_lifetime: seconds until a job expires.
        granularity_limits: days for hourly, days for daily, calendar years for monthly.
        cardinality: the most (flow, bucket) pairs that a query may span; None is no bound.
        order: in which a scan walks: flow after flow, or bucket after bucket.
        percent_of: what percentOfTotal is a share of.
        split_entries: cuts each page's last (flow, bucket) over two pages.
        latency: seconds before each answer.
        faults: what goes wrong.
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
    requests_per_minute: int | None = 300
    extra_dimension: bool = False
    job_polls: int = 2
    job_lifetime: float = 86_400
    granularity_limits: tuple[int, int, int] = (7, 365, 7)
    cardinality: int | None = None
    order: Order = "flow"
    percent_of: PercentOf = "flow"
    split_entries: bool = False
    latency: float = 0.0
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatorConfig:
    """The whole simulation.

    Attributes:
        orgs: by client id.
        seed: what generated figures follow from.
        host: the address to listen on.
        port: 0 is any free one.
    """

    orgs: Mapping[str, SimulatedOrg] = field(default_factory=lambda: {"acme": SimulatedOrg()})
    seed: int = 7
    host: str = "127.0.0.1"
    port: int = 0


PageKey: TypeAlias = tuple[str, str, Position]
"""A query's digest, the time zone it was cut in, and where in its walk the page begins."""

RememberedPage: TypeAlias = tuple[bytes, Position | None]
"""A page's JSON text but for its token, and where the next page begins."""


class Remembered:
    """Pages that can never change, up to a bound in bytes."""

    def __init__(self, bound: int = 2**27) -> None:
        self._bound = bound
        self._held = 0
        self._pages: dict[PageKey, RememberedPage] = {}

    def get(self, key: PageKey) -> RememberedPage | None:
        """The page, where it is remembered."""
        return self._pages.get(key)

    def put(self, key: PageKey, page: RememberedPage) -> None:
        """Remember a page; all others are forgotten where they would be too many."""
        if self._held + len(page[0]) > self._bound:
            self._pages.clear()
            self._held = 0
        self._pages[key] = page
        self._held += len(page[0])


class LiveOrg:
    """An organisation at work: its settings, and what has become of it since the simulator began."""

    def __init__(self, client_id: str, settings: SimulatedOrg, seed: int) -> None:
        self.client_id = client_id
        self.settings = settings
        self.timezone = ZoneInfo(settings.timezone)
        self.centre: Centre = settings.centre or GeneratedCentre(
            _seed_of(client_id, seed) if settings.seed is None else settings.seed,
            settings.flows,
            settings.outcomes,
        )
        self.rate = Rate(settings.requests_per_second)
        self.minute = Minute(settings.requests_per_minute)
        self.hold = Hold()
        self.flight = Flight()
        self.cursors = Cursors(settings.cursor_lifetime, settings.cursor_expired_status)
        self.remembered = Remembered()
        self.fired: Counter[str] = Counter()
        self.faults = FaultPlan(settings.faults, self.fired)


def _seed_of(client_id: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}:{client_id}".encode(), digest_size=6).digest(), "big")

"""A daemon as the web server sees it, without orgs at work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from service.config import Config
from service.telemetry import Reporter, Warned
from service.web import Load


@dataclass
class FakeDaemon:
    """A ``DaemonView`` with the given values.

    Attributes:
        config: the configuration.
        dsn: the database; None for one that has not started.
        loads: the load of each org that the process holds.
        reporter: gives the metrics and the warnings.
        storage_problem: why a scan could not be stored.
    """

    config: Config
    dsn: str | None
    loads: Mapping[str, Load] = field(default_factory=dict)
    reporter: Reporter = field(default_factory=Reporter)
    storage_problem: str = ""

    @property
    def registry(self) -> CollectorRegistry:
        return self.reporter.registry

    @property
    def warned(self) -> Sequence[Warned]:
        return self.reporter.warned

    def load(self) -> Mapping[str, Load]:
        return self.loads

"""What the web server reads of the daemon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry

from service.config import Config
from service.telemetry import Warned


class Load(NamedTuple):
    """An org's scans in this process: those in flight, and those waiting for a slot."""

    in_flight: int
    waiting: int


class DaemonView(Protocol):
    """The daemon as the web server sees it; each value is as of now."""

    @property
    def config(self) -> Config:
        """The configuration in force."""

    @property
    def dsn(self) -> str | None:
        """The database; None until an embedded one has started."""

    @property
    def storage_problem(self) -> str:
        """Why this process could not store a scan, within the last minute; or empty."""

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics of this process's events."""

    @property
    def warned(self) -> Sequence[Warned]:
        """The last warnings and errors, oldest first."""

    def load(self) -> Mapping[str, Load]:
        """The load of each org that this process holds."""

"""Orgs on the public API without limits, and one job that extracts their days."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from service.simulator import SimulatedOrg, Simulator
from tests.support.program import Program, today

DAY = timedelta(days=1)
OPEN = SimulatedOrg(requests_per_second=None, requests_per_minute=None, job_polls=1)


def configure(
    program: Program,
    simulator: Simulator,
    org: Mapping[str, object] | None = None,
    *,
    days: int = 20,
    **job: object,
) -> None:
    """Extract the last ``days`` days of each org of the simulator."""
    program.configure(
        simulator,
        orgs={name: {"api": "flow-aggregates", **(org or {})} for name in simulator.orgs},
        jobs={"daily": {"since": (today() - days * DAY).date(), **job}},
    )

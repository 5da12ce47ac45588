"""An org's client, as its configuration says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from service.clock import Clock
from service.config import Org
from service.errors import ConfigError, UnauthorizedError
from service.genesys.aggregates_jobs import AggregatesJobs
from service.genesys.client import GenesysClient
from service.genesys.dialect import Dialect
from service.genesys.flow_aggregates import FlowAggregates
from service.genesys.query_builder import QueryBuilder
from service.telemetry import Emit, register_secret


def make_client(
    org: Org,
    emit: Emit,
    clock: Clock,
    lease_check: Callable[[], None],
    on_hold: Callable[[float], None],
    on_date: Callable[[datetime | None], None],
    spent_ago: float = 0.0,
) -> GenesysClient:
    """A client as the org's configuration says; the limit may have been spent so many seconds ago."""

    def credentials() -> tuple[str, str]:
        try:
            found = org.credentials()
        except ConfigError as error:
            raise UnauthorizedError(str(error)) from error
        register_secret(found.client_secret)
        return found.client_id, found.client_secret

    return GenesysClient(
        org.name,
        base_url=org.api_url,
        login_url=org.token_url,
        credentials=credentials,
        dialect=dialect_of(org),
        requests_per_second=org.requests_per_second,
        query_timeout=org.query_timeout,
        breaker_failures=org.breaker.failures,
        breaker_open_for=org.breaker.open_for,
        lease_check=lease_check,
        on_hold=on_hold,
        on_date=on_date,
        emit=emit,
        clock=clock,
        spent_ago=spent_ago,
    )


def dialect_of(org: Org) -> Dialect:
    """How the org's API is spoken."""
    if org.api == "query-builder":
        return QueryBuilder()
    return AggregatesJobs(org.job_timeout) if org.aggregates == "jobs" else FlowAggregates()

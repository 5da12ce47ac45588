"""Creates an org's client from its configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from urllib.parse import urlsplit

from service.clock import Clock
from service.config import Org
from service.errors import ConfigError, UnauthorizedError
from service.genesys.aggregates_jobs import AggregatesJobs
from service.genesys.breaker import OnStateChange, ignore_state_change
from service.genesys.client import GenesysClient
from service.genesys.dialect import Dialect
from service.genesys.flow_aggregates import FlowAggregates
from service.genesys.network import Network
from service.genesys.query_builder import QueryBuilder
from service.telemetry import Emit, Event, register_secret


def make_client(
    org: Org,
    emit: Emit,
    clock: Clock,
    lease_check: Callable[[], None],
    on_pause: Callable[[float], None],
    on_date: Callable[[datetime | None], None],
    spent_ago: float = 0.0,
    on_breaker_change: OnStateChange = ignore_state_change,
) -> GenesysClient:
    """The client for an org; the arguments are those of ``GenesysClient``."""

    def credentials() -> tuple[str, str]:
        try:
            current = org.credentials()
        except ConfigError as error:
            raise UnauthorizedError(str(error)) from error
        register_secret(current.client_secret)
        return current.client_id, current.client_secret

    if org.unknown_region is not None:
        emit(Event.REGION_UNKNOWN, org=org.name, region=org.unknown_region)
    servers = (org.token_url, org.api_url)
    network = Network(
        f"orgs.{org.name}",
        {urlsplit(url).netloc: org.route_to(url) for url in servers},
        org.certificates,
        os.environ.get("SSL_CERT_FILE", ""),
    )
    return GenesysClient(
        org.name,
        base_url=org.api_url,
        login_url=org.token_url,
        credentials=credentials,
        dialect=_dialect(org),
        requests_per_second=org.requests_per_second,
        rate_ceiling=org.rate_ceiling,
        query_timeout=org.query_timeout,
        breaker_failures=org.breaker.failures,
        breaker_open_for=org.breaker.open_for,
        lease_check=lease_check,
        on_pause=on_pause,
        on_date=on_date,
        on_breaker_change=on_breaker_change,
        emit=emit,
        clock=clock,
        spent_ago=spent_ago,
        network=network,
    )


def _dialect(org: Org) -> Dialect:
    if org.api == "query-builder":
        return QueryBuilder()
    return AggregatesJobs(org.job_timeout) if org.aggregates == "jobs" else FlowAggregates()

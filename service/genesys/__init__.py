"""One org's API: a client that sends one request at a time per query, and the APIs' dialects.

::

    factory             creates an org's client from its configuration
    client              a query's pages; limiter, lease check and breaker around every request
    dialect             what an API implements
    query_builder       ┐
    flow_aggregates     ├ the dialects
    aggregates_jobs     ┘
    measures            what flow-aggregates is queried for, by measure
    names               the names of flows and outcomes
    divisions           where the client's role sees figures
    retention           how long the org keeps its data
    oauth               the access token
    limiter             requests a second, and the pause after a 429
    rate_limit_headers  the limit as the API's responses state it
    breaker, retry      what follows a failure
    error_mapping       an error response as one of our errors
    html_page           a gateway's page as one line
    transport           one request through aiohttp, its response bounded
    network             proxies and certificates; why there is no connection
    server_clock        the API's time, from the dates of its responses
    loose_json          JSON with exact numbers and lone surrogates
    redaction           removes secrets from texts of the server
"""

from service.genesys.client import GenesysClient
from service.genesys.dialect import Dialect
from service.genesys.divisions import permitted_divisions
from service.genesys.factory import make_client
from service.genesys.names import (
    FLOW_NAMES,
    MILESTONE_NAMES,
    OUTCOME_NAMES,
    Listed,
    NameList,
    count_names,
    list_names,
)
from service.genesys.retention import PERMISSION as RETENTION_PERMISSION
from service.genesys.retention import read_retention_days

__all__ = [
    "FLOW_NAMES",
    "MILESTONE_NAMES",
    "OUTCOME_NAMES",
    "RETENTION_PERMISSION",
    "Dialect",
    "GenesysClient",
    "Listed",
    "NameList",
    "count_names",
    "list_names",
    "make_client",
    "permitted_divisions",
    "read_retention_days",
]

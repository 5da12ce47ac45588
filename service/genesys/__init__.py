"""One request at a time to an org's API: its limit, its token, its breaker, its dialects.

::

    factory             an org's client, as its configuration says
    client              a query's pages, one request at a time
    dialect             what an API has to say of itself
    query_builder       ┐
    flow_aggregates     ├ the dialects
    aggregates_jobs     ┘
    names               lists of flows and outcomes
    oauth               the access token
    limiter             requests a second, and the pause after a 429
    rate_limit_headers  what an answer says of the limit
    breaker, retry      what happens after a failure
    error_mapping       an error's answer as one of our errors
    transport           a request over aiohttp, its answer bounded
    server_clock        the API's clock, from the dates of its responses
    loose_json          JSON with exact numbers and lone surrogates
    redaction           secrets out of errors
"""

from service.genesys.aggregates_jobs import AggregatesJobs
from service.genesys.client import GenesysClient
from service.genesys.dialect import ApiRequest, Dialect
from service.genesys.factory import make_client
from service.genesys.flow_aggregates import FlowAggregates
from service.genesys.names import FLOWS, OUTCOMES, Listing, listed
from service.genesys.query_builder import QueryBuilder

__all__ = [
    "FLOWS",
    "OUTCOMES",
    "AggregatesJobs",
    "ApiRequest",
    "Dialect",
    "FlowAggregates",
    "GenesysClient",
    "Listing",
    "QueryBuilder",
    "listed",
    "make_client",
]

"""One request at a time to an org's API: its limit, its token, its breaker, its dialects."""

from service.genesys.aggregates_jobs import AggregatesJobs
from service.genesys.client import GenesysClient
from service.genesys.dialect import ApiRequest, Dialect
from service.genesys.flow_aggregates import FlowAggregates
from service.genesys.query_builder import QueryBuilder

__all__ = ["AggregatesJobs", "ApiRequest", "Dialect", "FlowAggregates", "GenesysClient", "QueryBuilder"]

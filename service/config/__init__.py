"""One validated, immutable configuration from a YAML file and the environment.

::

    loading       the configuration, or every fault at once
    document      the file as a tree
    environment   variables that override the file
    file_content  a file's content, limited in size
    sections      each section's keys, bounds and defaults
    fields        the types of the keys
    secret_file   a secret in a file
    values        durations, dates, hours, URLs
    warehouse     the location of a warehouse, the properties of its catalog
    rules         conditions that involve several keys
    dsn           faults and secrets of the database's DSN
    regions       the domains of Genesys Cloud's regions
    proxies       the proxy for a URL, an org's own or the environment's
    certificates  a company's own certificate authorities
    effective     every key with its value
    schema        the JSON Schema
    starting      the file that ``init`` writes
"""

from service.config.loading import config_from, load_config
from service.config.proxies import Proxy, Route
from service.config.sections import AdHoc, Breaker, Config, Credentials, Database, Export, Http, Job, Log, Org
from service.config.values import OffPeak, Since

__all__ = [
    "AdHoc",
    "Breaker",
    "Config",
    "Credentials",
    "Database",
    "Export",
    "Http",
    "Job",
    "Log",
    "OffPeak",
    "Org",
    "Proxy",
    "Route",
    "Since",
    "config_from",
    "load_config",
]

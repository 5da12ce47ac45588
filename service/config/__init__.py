"""One validated, frozen configuration out of a YAML file and the environment.

::

    document      the file as a tree
    environment   variables laid over it
    rules         what holds between keys
    sections      each section's keys, bounds and defaults
    values        durations, dates, hours, URLs
    dsn           the database's DSN: its faults and its secrets
    loading       all of it, and every fault at once
"""

from service.config.loading import config_from, load_config
from service.config.sections import AdHoc, Breaker, Config, Credentials, Database, Http, Job, Log, Org
from service.config.values import OffPeak, Since

__all__ = [
    "AdHoc",
    "Breaker",
    "Config",
    "Credentials",
    "Database",
    "Http",
    "Job",
    "Log",
    "OffPeak",
    "Org",
    "Since",
    "config_from",
    "load_config",
]

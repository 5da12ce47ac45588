"""The configuration and logging of a command."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Literal

from service.config import Config, load_config
from service.errors import Fault
from service.telemetry import logs


def load(arguments: argparse.Namespace, *, logs_to: Literal["stdout", "stderr"] = "stderr") -> Config:
    """Read the file that ``--config`` names and configure logging as it says.

    A command logs to standard error: standard output is for its result.

    Raises:
        ConfigError: the configuration is invalid.
    """
    config = read(arguments.config)
    logs.configure(config.log.level, config.log.format, sys.stdout if logs_to == "stdout" else sys.stderr)
    return config


def read(path: Path) -> Config:
    """Read a configuration and register the secrets of the database and of the proxies for redaction.

    Raises:
        ConfigError: the configuration is invalid.
    """
    config = load_config(path)
    of_proxies = [secret for org in config.orgs.values() for proxy in org.proxies for secret in proxy.secrets]
    for secret in (*config.database.secrets, os.environ.get("PGPASSWORD", ""), *of_proxies):
        logs.register_secret(secret)
    return config


def unknown_org(config: Config, name: str) -> Fault:
    """The fault of an ``--org`` that the configuration does not have."""
    return Fault("--org", f"no org {name!r}; configured: {', '.join(config.orgs)}")

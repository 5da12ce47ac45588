"""The configuration and logging of a command."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Literal

from service.cli.argument_parser import suggestion
from service.config import Config, load_config
from service.errors import Fault
from service.telemetry import logs, traces


def load(
    arguments: argparse.Namespace, *, logs_to: Literal["stdout", "stderr"] = "stderr", traced: bool = False
) -> Config:
    """Read the configuration's file, and configure logging as it and the arguments say, and traces if ``traced``.

    A command logs to standard error: standard output is for its result.

    Raises:
        ConfigError: the configuration is invalid.
    """
    config = read(arguments)
    stream = sys.stdout if logs_to == "stdout" else sys.stderr
    logs.configure(config.log.level, config.log.format, stream)
    if traced:
        traces.configure()
    return config


def read(arguments: argparse.Namespace) -> Config:
    """Read a configuration and register the secrets of the database and of the proxies for redaction.

    Raises:
        ConfigError: the configuration is invalid.
    """
    config = load_config(arguments.config)
    of_proxies = [secret for org in config.orgs.values() for proxy in org.proxies for secret in proxy.secrets]
    for secret in (
        *config.database.secrets,
        os.environ.get("PGPASSWORD", ""),
        *of_proxies,
        *_export_secrets(config),
    ):
        logs.register_secret(secret)
    if arguments.quiet or arguments.verbose:
        level = "error" if arguments.quiet else "debug"
        return config.model_copy(update={"log": config.log.model_copy(update={"level": level})})
    return config


def _export_secrets(config: Config) -> frozenset[str]:
    return frozenset() if config.export is None else config.export.secrets


def unknown_org(config: Config, name: str) -> Fault:
    """The fault of an ``--org`` that the configuration does not have."""
    meant = suggestion(name, config.orgs)
    return Fault("--org", f"no org {name!r}; {meant and f'{meant} '}configured: {', '.join(config.orgs)}")

"""``flow-outcomes fdw``: prints the SQL with which one PostgreSQL reads several installations."""

from __future__ import annotations

import argparse

from service.cli import ExitCode
from service.config import Config, load_config
from service.errors import ConfigError, Fault
from service.postgres.fdw import Installation, fdw_sql
from service.telemetry import printable


def run(arguments: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    print(fdw_sql(_installations(arguments)))
    return ExitCode.DONE


def _installations(arguments: argparse.Namespace) -> list[Installation]:
    """What the configurations name.

    Raises:
        ConfigError: a configuration is invalid, has no DSN, or names an org that another one names too.
    """
    faults: list[Fault] = []
    installations: list[Installation] = []
    named: dict[str, str] = {}
    for file in arguments.configs:
        name = printable(str(file))
        try:
            config: Config = load_config(file)
        except ConfigError as error:
            faults += [Fault(f"{name}: {fault.key}", fault.message) for fault in error.faults]
            continue
        if config.database.dsn is None:
            faults.append(Fault(f"{name}: database.dsn", "is required: an embedded PostgreSQL has no address"))
        else:
            dsn = config.database.dsn.get_secret_value()
            installations.append(Installation(name, dsn, list(config.orgs)))
        for org in config.orgs:
            if org in named:
                faults.append(Fault(f"{name}: orgs.{org}", f"is also in {named[org]}; an org has one database"))
            named.setdefault(org, name)
    if faults:
        raise ConfigError(faults)
    return installations

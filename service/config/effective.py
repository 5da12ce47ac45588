"""The effective configuration: every key with its value, secrets hidden."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import isodate
from pydantic import BaseModel, SecretStr

from service.config.document import Tree
from service.config.proxies import parse_proxy
from service.config.sections import Config
from service.config.values import OffPeak, Since

HIDDEN = "***"


def effective(config: Config) -> Tree:
    """The configuration as plain values, in the form of the file.

    A job's default that depends on its orgs' API is shown where it is the same for all of them, and is left out
    otherwise. A secret is ``***``, and so are user and password in a proxy's URL. In a DSN the password is not
    hidden: hide it where the text is printed.
    """
    tree: Tree = _plain(config)
    for org in tree["orgs"].values():
        if org["api"] != "flow-aggregates":
            del org["aggregates"]  # it is a fault to give it
    for name, job in config.jobs.items():
        of_orgs = [_plain(job.of(org)) for org in config.orgs_of(name)]
        tree["jobs"][name] = {
            key: value
            for key, value in (of_orgs[0] if of_orgs else _plain(job)).items()
            if all(each[key] == value for each in of_orgs)
        }
    for name, org in config.orgs.items():
        if org.proxy is not None:
            proxy = parse_proxy(org.proxy.get_secret_value(), "proxy")
            tree["orgs"][name]["proxy"] = proxy.url_with(HIDDEN)
    if config.database.dsn is not None:
        tree["database"]["dsn"] = config.database.dsn.get_secret_value()
    return tree


def _plain(value: Any) -> Any:  # noqa: ANN401, PLR0911 - a value of the configuration; a case for each type
    match value:
        case BaseModel():
            fields = type(value).model_fields.items()
            return {info.alias or name: _plain(getattr(value, name)) for name, info in fields}
        case SecretStr():
            return HIDDEN
        case timedelta():
            return isodate.duration_isoformat(value)
        case Since() | OffPeak() | Path():
            return str(value)
        case date():
            return value.isoformat()
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
        case tuple() | list():
            return [_plain(each) for each in value]
        case _:
            return value

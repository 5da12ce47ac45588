"""Conditions that involve several keys: exactly one of two, references to names, an order.

The rules read the raw tree, so that they report their faults together with those of validation. They skip values
that are invalid by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from service.config import values
from service.config.certificates import read_certificates
from service.config.document import Tree
from service.config.dsn import fault_in
from service.config.secret_file import read_secret
from service.errors import Fault

AGGREGATES = "flow-aggregates"
_GRANULARITIES = {
    "hour": ("hourly",),
    "day": ("hourly", "daily"),
    "week": ("hourly", "daily"),
    "month": ("hourly", "daily", "monthly"),
}


def faults_between(tree: Tree) -> Iterator[Fault]:
    """The faults of all rules."""
    orgs = _sections(tree, "orgs")
    yield from _database(_mapping(tree.get("database")))
    yield from _export(tree.get("export"), _mapping(tree.get("database")))
    if tree.get("orgs") in ({}, None):
        yield Fault("orgs", "must have at least one org")
    for name, org in orgs.items():
        yield from _org(f"orgs.{name}", org)
    for name, job in _sections(tree, "jobs").items():
        yield from _job(f"jobs.{name}", job, orgs)
    yield from _groupings(_sections(tree, "jobs"), orgs)
    for name, entry in _sections(tree, "ad_hoc").items():
        yield from _ad_hoc(f"ad_hoc.{name}", entry, orgs)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _sections(tree: Tree, key: str) -> dict[str, Mapping[str, object]]:
    return {str(name): _mapping(value) for name, value in _mapping(tree.get(key)).items()}


def _one_of(key: str, section: Mapping[str, object], one: str, other: str) -> Iterator[Fault]:
    given = [name for name in (one, other) if section.get(name) is not None]
    if not given:
        yield Fault(f"{key}.{one}", f"is required, or {other}")
    elif len(given) > 1:
        yield Fault(f"{key}.{other}", f"conflicts with {one}; give exactly one of them")


def _database(database: Mapping[str, object]) -> Iterator[Fault]:
    yield from _one_of("database", database, "dsn", "embedded")
    dsn = database.get("dsn")
    if isinstance(dsn, str) and (fault := fault_in(str(dsn))):
        yield Fault("database.dsn", fault)


_CATALOGS = ("sql", "rest", "glue", "hive", "dynamodb", "bigquery")


def _export(export: object, database: Mapping[str, object]) -> Iterator[Fault]:
    if not isinstance(export, dict):
        return
    given = values.from_text(export.get("catalog"))
    catalog = {"type": "sql"} if given is None else _mapping(given)
    kind = str(catalog.get("type", "sql"))
    if kind not in _CATALOGS and "py-catalog-impl" not in catalog:
        yield Fault("export.catalog.type", f"must be {_or(*_CATALOGS)}")
    if kind == "sql" and not catalog.get("uri") and database.get("embedded") is not None:
        yield Fault(
            "export.catalog.uri",
            "is required with database.embedded, which other programs cannot reach; such as"
            " sqlite:////srv/flow-outcomes/catalog.db or postgresql://USER@HOST/DATABASE",
        )


def _org(key: str, org: Mapping[str, object]) -> Iterator[Fault]:
    yield from _one_of(key, org, "client_secret", "client_secret_file")
    secret = org.get("client_secret")
    if isinstance(secret, str):
        try:
            values.secret(secret)
        except ValueError as error:
            yield Fault(f"{key}.client_secret", str(error))
    if org.get("client_secret_file") is not None and secret is None:
        with suppress(ValueError):
            _, fault = read_secret(values.path(org["client_secret_file"]))
            if fault:
                yield Fault(f"{key}.client_secret_file", fault)
    if values.null_if_empty(org.get("ca_file")) is not None:
        with suppress(ValueError):
            _, fault = read_certificates(values.path(org["ca_file"]))
            if fault:
                yield Fault(f"{key}.ca_file", fault)
    yield from _urls(key, org)
    if org.get("aggregates") is not None and org.get("api") != "flow-aggregates":
        yield Fault(f"{key}.aggregates", "applies only to api: flow-aggregates; remove it")
    if not values.is_null(org.get("retention")) and org.get("api") != "flow-aggregates":
        yield Fault(f"{key}.retention", "applies only to api: flow-aggregates; remove it")
    client_id = org.get("client_id")
    if isinstance(client_id, str) and ":" in client_id:
        yield Fault(f"{key}.client_id", "must not contain a colon")


def _urls(key: str, org: Mapping[str, object]) -> Iterator[Fault]:
    if org.get("region") is None:
        if org.get("base_url") is None:
            yield Fault(f"{key}.region", "is required (such as mypurecloud.com), or base_url and login_url")
        elif org.get("login_url") is None:
            yield Fault(f"{key}.login_url", "is required with base_url, unless region is given")


def _job(key: str, job: Mapping[str, object], orgs: Mapping[str, object]) -> Iterator[Fault]:
    names = values.from_text(job.get("orgs"))
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name not in orgs:
            yield Fault(f"{key}.orgs", f"unknown org {name!r}; known orgs: {_listed(orgs)}")
    lacking = sorted(org for org in _orgs_of(job, orgs) if _mapping(orgs.get(org)).get("api") != AGGREGATES)
    for given in ("measure", "group_by"):
        if lacking and values.from_text(job.get(given)) not in (None, "outcomes", []):
            yield Fault(
                f"{key}.{given}", f"needs api: {AGGREGATES}, which these orgs do not have: {', '.join(lacking)}"
            )
    window, granularity = job.get("window", "day"), job.get("granularity", "daily")
    if granularity in {"hourly", "daily", "monthly"} and isinstance(window, str) and window in _GRANULARITIES:
        allowed = _GRANULARITIES[window]
        if granularity not in allowed:
            fault = "is" if "granularity" in job else "is daily by default,"
            yield Fault(
                f"{key}.granularity",
                f"{fault} coarser than the window; with window: {window} use {_or(*allowed, 'auto')}",
            )


def _orgs_of(job: Mapping[str, object], orgs: Mapping[str, object]) -> list[str]:
    """The known orgs of a job; all where it names none."""
    names = values.from_text(job.get("orgs"))
    if not isinstance(names, list) or not names:
        return list(orgs)
    return [name for name in names if isinstance(name, str) and name in orgs]


def _groupings(jobs: Mapping[str, Mapping[str, object]], orgs: Mapping[str, object]) -> Iterator[Fault]:
    """The jobs of an org that measure the same at one granularity must have the same ``group_by``."""
    first: dict[tuple[str, object, object], tuple[str, list[str]]] = {}
    for name, job in jobs.items():
        window, granularity = job.get("window", "day"), job.get("granularity", "daily")
        group_by, measure = values.from_text(job.get("group_by") or []), job.get("measure", "outcomes")
        if not (isinstance(window, str) and isinstance(granularity, str) and isinstance(measure, str)):
            continue
        if not isinstance(group_by, list) or not all(isinstance(each, str) for each in group_by):
            continue
        step, names = values.step(window, granularity), sorted(group_by)
        for org in _orgs_of(job, orgs):
            other, theirs = first.setdefault((org, step, measure), (name, names))
            if names != theirs:
                yield Fault(
                    f"jobs.{name}.group_by",
                    f"differs from that of jobs.{other}, and both measure {measure} of {org} at the granularity"
                    f" {step}; give both the same",
                )
                break


def _ad_hoc(key: str, entry: Mapping[str, object], orgs: Mapping[str, object]) -> Iterator[Fault]:
    org = entry.get("org")
    if isinstance(org, str) and org not in orgs:
        yield Fault(f"{key}.org", f"unknown org {str(org)!r}; known orgs: {_listed(orgs)}")
    measure = entry.get("measure")
    known = isinstance(org, str) and org in orgs
    if known and measure not in (None, "outcomes") and _mapping(orgs[str(org)]).get("api") != AGGREGATES:
        yield Fault(f"{key}.measure", f"needs api: {AGGREGATES}, which {org} does not have")
    with suppress(ValueError):
        if values.day(entry.get("from")) >= values.day(entry.get("to")):
            yield Fault(f"{key}.to", "must be later than from; the end is exclusive")


def _listed(orgs: Mapping[str, object]) -> str:
    return ", ".join(sorted(orgs)) or "none"


def _or(*words: str) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"

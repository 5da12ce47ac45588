"""The section ``export``: its defaults, its faults and its secrets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml

from service.config import config_from, load_config
from service.config.environment import read_environment
from service.config.sections import Config
from service.errors import ConfigError
from tests.support.documents import ROOT

ORG = {"region": "mypurecloud.com", "client_id": "me", "client_secret": "hunter2-very-secret"}
TREE: dict[str, Any] = {"database": {"dsn": "postgresql://outcomes@db/outcomes"}, "orgs": {"acme": ORG}}
EMBEDDED = {"database": {"embedded": "./data"}}


def faults_of(export: object, **other: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config_from({**TREE, **other, "export": export})
    return dict(caught.value.faults)


def exported(export: dict[str, Any]) -> Any:  # noqa: ANN401 - the section, which is there
    return config_from({**TREE, "export": export}).export


def test_defaults() -> None:
    """A warehouse is enough: the catalog is in the database; without the section there is none."""
    section = exported({"warehouse": "s3://lake/flow/"})
    assert section.warehouse == "s3://lake/flow"
    assert section.properties() == {"type": "sql"}
    assert (section.namespace, section.every) == ("flow_outcomes", timedelta(hours=1))
    assert section.keep_snapshots == timedelta(days=7)
    assert config_from(TREE).export is None
    assert config_from({**TREE, "export": None}).export is None
    assert exported({"warehouse": "file:///srv/x", "every": None}).every is None


@pytest.mark.parametrize(
    "given",
    [
        "s3://lake",
        "gs://lake/flow",
        "abfs://lake@account.dfs.core.windows.net/flow",
        "abfss://lake@account.dfs.core.windows.net",
        "file:///srv/flow-outcomes",
    ],
)
def test_warehouses(given: str) -> None:
    """Each kind of storage is accepted as it is written."""
    assert exported({"warehouse": given}).warehouse == given


@pytest.mark.parametrize(
    "given",
    [
        *(
            "/srv/flow-outcomes",
            "flow",
            "",
            "s3:",
            "s3://",
            "s3:/lake",
            "file://srv/x",
            "file:relative",
            "s3://[x/y",
        ),
        *("hdfs://lake/x", "ftp://lake/x", "http://lake/x", "https://lake.s3.amazonaws.com/x", "S4://lake"),
        *("s3://lake/x?y=z", "s3://lake/x#y", "s3://lake/x y", 7, ["s3://lake"], "s3://la\nke"),
    ],
)
def test_warehouses_that_are_none(given: object) -> None:
    """A scheme that is not supported, or a location that is none, is a fault of its key."""
    faults = faults_of({"warehouse": given})
    assert faults.keys() == {"export.warehouse"}
    assert faults["export.warehouse"].startswith("must be s3://BUCKET/PATH, gs://BUCKET/PATH")


def test_credentials_in_the_warehouse() -> None:
    """They would be in every file's path."""
    for given in ("s3://key:canary@lake/x", "gs://canary@lake/x"):
        [fault] = faults_of({"warehouse": given}).values()
        assert fault.startswith("must not contain credentials")


def test_faults_name_their_keys() -> None:
    """Each fault at once, each with its key."""
    faults = faults_of(
        {
            "catalog": {"type": "oracle", "nested": {"a": 1}},
            "namespace": "Flow Outcomes",
            "every": "hourly",
            "keep_snapshots": "PT0S",
            "to": "/srv",
        }
    )
    assert faults.keys() == {
        "export.catalog",
        "export.catalog.type",
        "export.every",
        "export.keep_snapshots",
        "export.namespace",
        "export.to",
        "export.warehouse",
    }
    assert faults["export.warehouse"] == "is required"
    assert faults["export.catalog.type"] == "must be sql, rest, glue, hive, dynamodb or bigquery"
    assert faults["export.to"].startswith("unknown key; known keys: catalog, warehouse, namespace")
    assert faults_of({}).keys() == {"export.warehouse"}
    assert faults_of("s3://lake").keys() == {"export"}


def test_the_embedded_database_needs_a_uri() -> None:
    """Its catalog could not be reached by readers; SQLite or another PostgreSQL can, and so can other catalogs."""
    warehouse = {"warehouse": "file:///srv/x"}
    for catalog in ({}, {"catalog": {"type": "sql"}}, {"catalog": {"type": "sql", "uri": ""}}):
        assert faults_of(warehouse | catalog, **EMBEDDED).keys() == {"export.catalog.uri"}
    for given in ({"type": "sql", "uri": "sqlite:////srv/c.db"}, {"type": "glue"}, {"py-catalog-impl": "x.Y"}):
        config_from({**TREE, **EMBEDDED, "export": {**warehouse, "catalog": {"type": "glue"} | given}})


def test_properties_of_the_catalog_are_texts() -> None:
    """YAML's numbers and booleans are passed on as pyiceberg takes them."""
    given: dict[str, Any] = {"type": "rest", "uri": "https://catalog", "s3.force-virtual-addressing": True}
    given["s3.connect-timeout"] = 5
    assert exported({"warehouse": "s3://lake", "catalog": given}).properties() == {
        "type": "rest",
        "uri": "https://catalog",
        "s3.force-virtual-addressing": "true",
        "s3.connect-timeout": "5",
    }


def test_secrets() -> None:
    """What grants access is registered for redaction, and the section's text hides every property's value."""
    section = exported(
        {
            "warehouse": "s3://lake",
            "catalog": {
                "type": "sql",
                "uri": "postgresql://me:canary-one@db/catalog",
                "s3.secret-access-key": "canary-two",
                "credential": "id:canary-three",
            },
        }
    )
    assert {"canary-one", "canary-two", "id:canary-three"} <= section.secrets
    assert "canary" not in repr(section)
    assert "sql" not in section.secrets


def test_the_environment() -> None:
    """Each key has a variable; the catalog is JSON, or one variable for a property."""
    environ = {
        "FLOW_OUTCOMES_EXPORT__WAREHOUSE": "s3://lake",
        "FLOW_OUTCOMES_EXPORT__EVERY": "PT5M",
        "FLOW_OUTCOMES_EXPORT__CATALOG": '{"type": "rest", "s3.endpoint": "http://127.0.0.1:1"}',
        "FLOW_OUTCOMES_EXPORT__CATALOG__URI": "https://catalog",
    }
    overlay = read_environment(environ, Config, TREE)
    assert overlay.faults == []
    section = config_from(overlay.apply(TREE)).export
    assert section is not None
    assert section.every == timedelta(minutes=5)
    expected = {"type": "rest", "s3.endpoint": "http://127.0.0.1:1", "uri": "https://catalog"}
    assert section.properties() == expected


def test_the_example() -> None:
    """Without its comment signs, the example's section is valid and has the defaults."""
    text = (ROOT / "config" / "flow-outcomes.example.yaml").read_text()
    part = text[text.index("# export:") : text.index("ad_hoc:  ")]
    lines = [line.removeprefix("# ").removeprefix("#") for line in part.splitlines()]
    given = yaml.safe_load("\n".join(lines))["export"]
    assert exported(given) == exported({"warehouse": given["warehouse"]})
    assert load_config(ROOT / "config" / "flow-outcomes.example.yaml", {}).export is None

"""The configuration as documents: the starting file, the effective values, the JSON Schema."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.config import config_from, load_config
from service.config.effective import effective
from service.config.schema import json_schema
from service.config.starting import starting_configuration
from service.config.values import off_peak, since
from service.errors import ConfigError

pytestmark = pytest.mark.unit

EXAMPLE = Path(__file__).parents[3] / "config" / "flow-outcomes.example.yaml"


def as_json(text: str) -> Any:  # noqa: ANN401 - a value of JSON
    """A YAML document as an editor sees it: dates are text."""
    return plain(yaml.safe_load(text))


def plain(value: Any) -> Any:  # noqa: ANN401 - a value of JSON
    """The value with its dates as text."""
    match value:
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case list():
            return [plain(each) for each in value]
        case date():
            return value.isoformat()
        case _:
            return value


def job(**keys: object) -> dict[str, Any]:
    """A valid tree with one job."""
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "long-enough-secret"}
    return {
        "database": {"dsn": "postgresql://me:canary-password@db/x"},
        "orgs": {"acme": org, "north": {**org, "api": "flow-aggregates"}},
        "jobs": {"daily": {"since": "P30D", **keys}},
    }


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("today", [date(2024, 2, 29), date(2026, 12, 31), date(2027, 1, 1)])
def test_the_starting_configuration_is_valid(tmp_path: Path, today: date, embedded: bool) -> None:
    """``init`` writes a configuration that loads as it is, for the public API, with the chosen database."""
    file = tmp_path / "flow-outcomes.yaml"
    file.write_text(starting_configuration(today, embedded=embedded))
    config = load_config(file, {})
    assert (config.database.embedded is not None) == embedded
    assert [org.api for org in config.orgs.values()] == ["flow-aggregates"]
    jsonschema.validate(as_json(file.read_text()), json_schema())


def test_the_schema_is_valid_and_accepts_the_example() -> None:
    """The schema is a valid JSON Schema, and the example is valid by it."""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(as_json(EXAMPLE.read_text()), json_schema())


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("http", "port", 70000),
        ("http", "prot", 8080),
        ("log", "level", "loud"),
        ("database", "pool_size", 1),
    ],
)
def test_the_schema_rejects_what_the_program_rejects(section: str, key: str, value: object) -> None:
    """A bound, an unknown key and a choice are in the schema."""
    tree = as_json(EXAMPLE.read_text())
    tree[section][key] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json_schema())


@pytest.mark.parametrize("name", ["Acme", "a b", "1a", ""])
def test_the_schema_rejects_an_invalid_name(name: str) -> None:
    """An org's name has the pattern of the program."""
    tree = as_json(EXAMPLE.read_text())
    tree["orgs"][name] = tree["orgs"]["acme"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tree, json_schema())


def test_the_effective_configuration_loads_again() -> None:
    """The effective configuration of the example is a configuration, and has the same effective values."""
    shown = effective(load_config(EXAMPLE, {}))
    shown["orgs"]["acme"]["client_secret"] = "long-enough-secret"
    again = effective(config_from(shown))
    again["orgs"]["acme"]["client_secret"] = "long-enough-secret"
    assert again == shown


def test_no_secret_of_an_org_is_shown() -> None:
    """A client secret is hidden."""
    shown = effective(config_from(job()))
    assert shown["orgs"]["acme"]["client_secret"] == "***"
    assert "long-enough-secret" not in str(shown)


@pytest.mark.parametrize(
    ("orgs", "lookback"), [(["acme"], "P3D"), (["north"], "P7D"), (["acme", "north"], None), ([], None)]
)
def test_a_default_that_depends_on_the_api_is_shown_where_it_is_one(orgs: list[str], lookback: str | None) -> None:
    """The default lookback is that of the job's orgs; where these differ, the key is left out."""
    shown = effective(config_from(job(orgs=orgs)))["jobs"]["daily"]
    assert shown.get("lookback") == lookback
    assert ("off_peak" in shown) == (lookback is not None)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 23))
def test_a_duration_back_is_shown_as_one_that_is_equal(months: int, days: int, hours: int) -> None:
    """The text of a parsed ``since`` parses to the same."""
    parsed = since(f"P{months}M{days}DT{hours}H")
    assert since(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T06:00:00+00:00", "P2Y", "P30D", "P0D"])
def test_a_start_is_shown_as_one_that_is_equal(text: str) -> None:
    """The text of a parsed ``since`` parses to the same."""
    parsed = since(text)
    assert since(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["02:00-05:00", "22:30-24:00", "23:00-01:15"])
def test_hours_are_shown_as_hours_that_are_equal(text: str) -> None:
    """The text of parsed hours parses to the same."""
    assert off_peak(str(off_peak(text))) == off_peak(text)


def test_a_file_without_an_end_is_a_fault() -> None:
    """A file is read up to a limit; the rest would fill the memory."""
    with pytest.raises(ConfigError, match="/dev/zero: cannot be read: File too large"):
        load_config(Path("/dev/zero"), {})

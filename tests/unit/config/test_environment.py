"""Environment variables, and the secrets of the configuration."""

import os
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.config import Since, config_from, load_config
from service.config.secret_file import read_secret
from service.errors import ConfigError
from tests.support.configs import MINIMAL, SECRET, tree, written


def test_environment_wins(tmp_path: Path) -> None:
    """Variables override the file; numbers, lists and sections are parsed from their text."""
    config = load_config(
        written(tmp_path, MINIMAL + "ad_hoc: {a-b: {org: acme, from: 2024-01-01, to: 2024-02-01}}\n"),
        {
            "FLOW_OUTCOMES_ORGS__ACME__CLIENT_SECRET": "0123456789",
            "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": "50",
            "FLOW_OUTCOMES_ORGS__ACME__REQUESTS_PER_SECOND": "2.5",
            "FLOW_OUTCOMES_ORGS__ACME__FLOWS": '["a", "b"]',
            "FLOW_OUTCOMES_ORGS__ACME__BREAKER": '{"failures": 3}',
            "FLOW_OUTCOMES_ORGS__ACME__BREAKER__OPEN_FOR": "PT1S",
            "FLOW_OUTCOMES_ORGS__OTHER_ONE": '{"region": "usw2.pure.cloud", "client_id": "i"}',
            "FLOW_OUTCOMES_ORGS__OTHER_ONE__CLIENT_SECRET": "12345e67",
            "FLOW_OUTCOMES_DATABASE__EMBEDDED": "data",
            "FLOW_OUTCOMES_JOBS__DAILY__OFF_PEAK": "null",
            "FLOW_OUTCOMES_JOBS__DAILY__SINCE": "P2Y",
            "FLOW_OUTCOMES_AD_HOC__A_B__GRANULARITY": "monthly",
            "FLOW_OUTCOMES_SERVICE_HOST": "10.0.0.1",
            "FLOW_OUTCOMES_PORT_8080_TCP_ADDR": "10.0.0.1",
            "PATH": "/bin",
        },
    )
    acme, other = config.orgs["acme"], config.orgs["other_one"]
    assert acme.credentials().client_secret == "0123456789"
    assert other.credentials().client_secret == "12345e67"
    assert (acme.page_size, acme.requests_per_second, acme.flows) == (50, 2.5, ("a", "b"))
    assert (acme.breaker.failures, acme.breaker.open_for) == (3, timedelta(seconds=1))
    assert (config.database.dsn, config.database.embedded) == (None, Path("data"))
    assert config.jobs["daily"].off_peak is None
    assert config.jobs["daily"].since == Since(months=24)
    assert config.ad_hoc["a-b"].granularity == "monthly"


def test_an_optional_section_is_json(tmp_path: Path) -> None:
    """It overrides single keys of the file, or all of it with null; more variables override its keys."""
    file = written(tmp_path, MINIMAL + "export: {warehouse: s3://file/path, every: PT2H}\n")
    given = {
        "FLOW_OUTCOMES_EXPORT": '{"warehouse": "s3://bucket/path", "catalog": {"type": "glue"}}',
        "FLOW_OUTCOMES_EXPORT__NAMESPACE": "reports",
        "FLOW_OUTCOMES_JOBS__DAILY__DEEP_LOOKBACK": '{"span": "P35D", "every": "P7D"}',
    }
    config = load_config(file, given)
    assert config.export is not None
    assert (config.export.warehouse, config.export.namespace) == ("s3://bucket/path", "reports")
    assert (config.export.every, config.export.catalog["type"]) == (timedelta(hours=2), "glue")
    assert config.jobs["daily"].deep_lookback is not None
    for null in ("null", ""):
        assert load_config(file, {"FLOW_OUTCOMES_EXPORT": null}).export is None
    for invalid in ("s3://bucket/path", "[1]", '{"warehouse": "s3://bucket/path"'):
        with pytest.raises(ConfigError, match=r"export: must be .*set by FLOW_OUTCOMES_EXPORT"):
            load_config(file, {"FLOW_OUTCOMES_EXPORT": invalid})


SERVICE_LINKS = {
    "SERVICE_HOST": "10.0.0.1",
    "SERVICE_PORT": "5432",
    "SERVICE_PORT_POSTGRES_TLS": "5432",
    "PORT": "tcp://10.0.0.1:5432",
    **{
        f"PORT_{number}_{kind}": f"{kind.lower()}://10.0.0.1:{number}"
        for number, kind in [(5432, "TCP"), (53, "UDP")]
    },
    "PORT_5432_TCP_PROTO": "tcp",
    "PORT_5432_TCP_PORT": "5432",
    "PORT_5432_TCP_ADDR": "10.0.0.1",
    "PORT_9_SCTP_ADDR": "10.0.0.1",
}


@pytest.mark.parametrize("service", ["", "DB_", "METRICS_", "HTTP_", "ORGS_", "DATABASE_2_"])
def test_service_links_are_no_settings(tmp_path: Path, service: str) -> None:
    """Kubernetes sets them for flow-outcomes, and for every service whose name begins so."""
    links = {f"FLOW_OUTCOMES_{service}{name}": value for name, value in SERVICE_LINKS.items()}
    assert load_config(written(tmp_path, MINIMAL), links) == load_config(written(tmp_path, MINIMAL), {})


def test_the_variables_of_compose_are_no_settings(tmp_path: Path) -> None:
    """An env_file may set them within the container too."""
    environ = {"FLOW_OUTCOMES_CONFIG": "./flow-outcomes.yaml", "FLOW_OUTCOMES_SECRETS": "./secrets"}
    assert load_config(written(tmp_path, MINIMAL), environ) == load_config(written(tmp_path, MINIMAL), {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLOW_OUTCOMES_HTTP_PORT", "8081"),
        ("FLOW_OUTCOMES_PORT", "8081"),
        ("FLOW_OUTCOMES_DB_PORT", "http://10.0.0.1"),
        ("FLOW_OUTCOMES_DB__SERVICE_HOST", "10.0.0.1"),
        ("FLOW_OUTCOMES_DB_SERVICE_HOSTS", "10.0.0.1"),
        ("FLOW_OUTCOMES_DB_PORT_X_TCP", "tcp://10.0.0.1"),
        ("FLOW_OUTCOMES_DB_PORT_53_TCP_NAME", "tcp"),
        ("FLOW_OUTCOMES_SERVICES", "x"),
        ("FLOW_OUTCOMES_CONFIG_FILE", "x"),
    ],
)
def test_what_is_no_service_link_is_a_fault(tmp_path: Path, variable: str, value: str) -> None:
    """One underscore for two in a setting's name is still reported."""
    with pytest.raises(ConfigError, match="is not a setting"):
        load_config(written(tmp_path, MINIMAL), {variable: value})


def test_environment_faults(tmp_path: Path) -> None:
    """A variable that names no setting is a fault; the fault of an invalid value names its variable."""
    environ = {
        "FLOW_OUTCOMES_NONSENSE": SECRET,
        "FLOW_OUTCOMES_DATABASE_DSN": SECRET,
        "FLOW_OUTCOMES_ORGS__ACME__PAGESIZE": SECRET,
        "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": SECRET,
        "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE__X": SECRET,
        "FLOW_OUTCOMES_HTTP": SECRET,
    }
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, MINIMAL), environ)
    faults = dict(caught.value.faults)
    page_size = faults.pop("orgs.acme.page_size")
    assert page_size == "must be a whole number (set by FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE)"
    assert "JSON" in faults.pop("http")
    assert set(faults) == set(environ) - {"FLOW_OUTCOMES_HTTP", "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE"}
    assert SECRET not in str(caught.value)


def test_real_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the argument, the environment of the process is used."""
    for name in [name for name in os.environ if name.startswith("FLOW_OUTCOMES_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLOW_OUTCOMES_HTTP__PORT", "0")
    assert load_config(written(tmp_path, MINIMAL)).http.port == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"orgs__acme__client_secret": [SECRET]},
        {"orgs__acme__client_secret": {SECRET: SECRET}},
        {"orgs__acme__client_secrets": SECRET},
        {"orgs__acme__client_secret": f"{SECRET}\n"},
        {"orgs__acme__page_size": SECRET},
        {"orgs__acme__base_url": f"https://me:{SECRET}@example.com"},
        {"orgs__acme__timezone": SECRET},
        {"orgs__acme": SECRET},
        {"database__dsn": [SECRET]},
        {"database__dsn": f"postgresql://u:%{SECRET}@db/x"},
        {"database__dsn": f"host=db password='{SECRET}"},
        {"jobs__daily__delay": SECRET},
        {"jobs__daily__since": SECRET},
        {"jobs__daily__off_peak": SECRET},
    ],
)
def test_no_secret_in_a_fault(changes: dict[str, Any]) -> None:
    """No fault repeats the value, under whichever key a secret was written by mistake."""
    with pytest.raises(ConfigError) as caught:
        config_from(tree(**changes))
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + str(error) + repr(error.__context__)
    assert SECRET not in shown


def test_no_secret_in_repr() -> None:
    """Printing the configuration or the credentials shows no secret."""
    config = config_from(tree(database__dsn=f"postgresql://me:{SECRET}@db/x"))
    shown = f"{config!r} {config} {config.orgs['acme'].credentials()!r} {config.model_dump()}"
    assert SECRET not in shown


def test_secret_file_is_read_again(tmp_path: Path) -> None:
    """A rotated secret applies at the next token; a missing or empty file is a fault under its key."""
    file = tmp_path / "secret"
    file.write_text("the-first\n")
    text = MINIMAL.replace(f"client_secret: {SECRET}", "client_secret_file: secret")
    acme = load_config(written(tmp_path, text), {}).orgs["acme"]
    assert acme.credentials().client_secret == "the-first"
    file.write_text("a-second\r\n")
    assert acme.credentials().client_secret == "a-second"
    file.write_text("\n")
    with pytest.raises(ConfigError, match=r"orgs\.acme\.client_secret_file: the file is empty"):
        acme.credentials()
    file.write_text("7-chars\n")
    with pytest.raises(ConfigError, match=r"orgs\.acme\.client_secret_file: .* at least 8 characters"):
        acme.credentials()
    file.unlink()
    with pytest.raises(ConfigError, match=r"orgs\.acme\.client_secret_file: the file cannot be read"):
        load_config(written(tmp_path, text), {})


@pytest.mark.parametrize(
    "content",
    [
        b"a-long-secret",
        b"a-long-secret\r\n",
        b"\xef\xbb\xbfa-long-secret\r\n",
        b" \t a-long-secret \n\n",
        b"\xef\xbb\xbf\n a-long-secret\x0b",
        "\ufeffa-long-secret\r\n".encode("utf-16-le"),
        "\ufeffa-long-secret\r\n".encode("utf-16-be"),
        "\xa0a-long-secret\u2028".encode(),
    ],
)
def test_a_secret_file_as_editors_and_shells_write_it(tmp_path: Path, content: bytes) -> None:
    """A byte order mark and the blanks around the secret are no part of it."""
    (tmp_path / "secret").write_bytes(content)
    assert read_secret(tmp_path / "secret") == ("a-long-secret", "")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xef\xbb\xbf \r\n", "is empty"),
        (b"", "is empty"),
        (b"\xff\xfea", "UTF-8"),
        (b"secret\xff\xfe\xfd", "UTF-8"),
        (b"two lines\nof secrets", "one line"),
        (b"\xef\xbb\xbf\xef\xbb\xbftwo-marks", "only the secret"),
        (b" 7-chars ", "at least 8"),
    ],
)
def test_a_secret_file_without_a_valid_secret(tmp_path: Path, content: bytes, fault: str) -> None:
    """The fault does not repeat the content."""
    (tmp_path / "secret").write_bytes(content)
    secret, message = read_secret(tmp_path / "secret")
    assert not secret
    assert fault in message
    assert "chars " not in message

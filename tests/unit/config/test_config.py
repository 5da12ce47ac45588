"""The configuration: valid and invalid values, and the secrecy of secrets."""

import traceback
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.config import Export, config_from, load_config
from service.config.sections import Section
from service.config.values import off_peak
from service.errors import ConfigError
from tests.support.configs import MINIMAL, SECRET, faults_of, tree, written

DEEP = {"span": "P35D", "every": "P7D"}
EXAMPLE = Path(__file__).parents[3] / "config" / "flow-outcomes.example.yaml"


def test_example_is_valid_and_holds_the_defaults() -> None:
    """The example loads, and the values that it shows are the defaults."""
    shown = load_config(EXAMPLE, {})
    minimal = config_from(tree())
    assert shown.jobs["daily"] == minimal.jobs["daily"]
    assert shown.http == minimal.http
    assert shown.log == minimal.log
    different = {"client_id", "client_secret"}
    assert shown.orgs["acme"].model_dump(exclude=different) == minimal.orgs["acme"].model_dump(exclude=different)
    assert shown.ad_hoc["recount-march"].granularity == "auto"


def test_example_has_every_key() -> None:
    """Each key of each section is in the example, possibly in a comment."""
    text = EXAMPLE.read_text()
    config = load_config(EXAMPLE, {})
    sections = [config, config.database, config.http, config.log, config.orgs["acme"], config.jobs["daily"]]
    sections += [config.orgs["acme"].breaker, config.ad_hoc["recount-march"]]
    models: list[type[Section]] = [Export, *(type(section) for section in sections)]
    for model in models:
        for name, info in model.model_fields.items():
            assert f"{info.alias or name}:" in text


def test_defaults(tmp_path: Path) -> None:
    """A missing key has the documented default."""
    config = load_config(written(tmp_path, MINIMAL), {})
    acme, daily = config.orgs["acme"], config.jobs["daily"]
    assert (acme.api_url, acme.token_url) == ("https://api.mypurecloud.com", "https://login.mypurecloud.com")
    assert (acme.requests_per_second, acme.concurrency, acme.page_size) == (10, 4, 100)
    assert (acme.query_timeout, acme.job_timeout) == (timedelta(minutes=2), timedelta(minutes=10))
    assert (acme.breaker.failures, acme.breaker.open_for) == (5, timedelta(seconds=30))
    assert (acme.name, daily.name, acme.flows) == ("acme", "daily", ())
    assert (daily.delay, daily.lookback) == (timedelta(hours=1), timedelta(days=3))
    assert daily.off_peak == off_peak("02:00-05:00")
    assert config.orgs_of("daily") == (acme,)
    assert (config.http.port, config.database.pool_size) == (8080, 8)
    aggregates = config_from(tree(orgs__acme__api="flow-aggregates", orgs__acme__aggregates="jobs"))
    assert aggregates.orgs["acme"].requests_per_second == 5


def test_defaults_that_depend_on_the_api_are_an_orgs() -> None:
    """One job over orgs of both APIs: each org has its own default, and a given value applies to both."""
    acme = yaml.safe_load(MINIMAL)["orgs"]["acme"]

    def jobs(**changes: object) -> list[tuple[timedelta, object]]:
        given = {f"jobs__daily__{key}": value for key, value in changes.items()}
        config = config_from(tree(orgs__public={**acme, "api": "flow-aggregates"}, **given))
        found = [config.jobs_of(config.orgs[name])["daily"] for name in ("acme", "public")]
        assert [job.name for job in found] == ["daily", "daily"]
        return [(job.lookback, job.off_peak) for job in found]

    hours = off_peak("02:00-05:00")
    assert jobs() == [(timedelta(days=3), hours), (timedelta(days=7), None)]
    assert jobs(lookback="P3D") == [(timedelta(days=3), hours), (timedelta(days=3), None)]
    assert jobs(off_peak="02:00-05:00") == [(timedelta(days=3), hours), (timedelta(days=7), hours)]
    assert jobs(off_peak=None) == [(timedelta(days=3), None), (timedelta(days=7), None)]
    assert jobs(orgs=["acme", "public"], lookback="PT0S")[1] == (timedelta(0), None)


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("us-east-1", "mypurecloud.com"),
        ("EU-Central-1", "mypurecloud.de"),
        ("ap-southeast-2", "mypurecloud.com.au"),
        ("us-east-2", "use2.us-gov-pure.cloud"),
        ("api.mypurecloud.ie", "mypurecloud.ie"),
        ("login.usw2.pure.cloud", "usw2.pure.cloud"),
        ("apps.cac1.pure.cloud", "cac1.pure.cloud"),
        ("edee1.eusc-pure.cloud", "edee1.eusc-pure.cloud"),
    ],
)
def test_spellings_of_a_region(region: str, domain: str) -> None:
    """AWS names, and hosts of a region's services."""
    acme = config_from(tree(orgs__acme__region=region)).orgs["acme"]
    assert (acme.api_url, acme.token_url) == (f"https://api.{domain}", f"https://login.{domain}")
    assert acme.unknown_region is None


def test_an_unknown_region_is_reported() -> None:
    """It is accepted; with both URLs given it is not used."""
    assert config_from(tree(orgs__acme__region="mypurecloud.co")).orgs["acme"].unknown_region == "mypurecloud.co"
    urls = {"orgs__acme__base_url": "https://a.example", "orgs__acme__login_url": "https://b.example"}
    assert config_from(tree(orgs__acme__region="mypurecloud.co", **urls)).orgs["acme"].unknown_region is None


def test_only_a_given_limit_is_a_ceiling() -> None:
    """Of the rate that the API reports; a default is none."""
    assert config_from(tree()).orgs["acme"].rate_ceiling is None
    assert config_from(tree(orgs__acme__requests_per_second=1)).orgs["acme"].rate_ceiling == 1


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        ({"jobs__daily__deep_lookback": {"span": "P35D"}}, "jobs.daily.deep_lookback.every", "is required"),
        ({"jobs__daily__deep_lookback": {**DEEP, "every": "PT0S"}}, "jobs.daily.deep_lookback.every", "must be"),
        ({"jobs__daily__deep_lookback": {**DEEP, "at": 1}}, "jobs.daily.deep_lookback.at", "unknown key"),
        ({"jobs__daily__deep_lookback": []}, "jobs.daily.deep_lookback", "must be"),
        ({"jobs__daily__deep_lookback": "P35D"}, "jobs.daily.deep_lookback", "must be"),
        ({"orgs__acme__page_size": True}, "orgs.acme.page_size", "whole number"),
        ({"orgs__acme__page_size": "10"}, "orgs.acme.page_size", "whole number"),
        ({"orgs__acme__page_size": 1001}, "orgs.acme.page_size", "at most 1000"),
        ({"orgs__acme__page_size": 0}, "orgs.acme.page_size", "at least 1"),
        ({"orgs__acme__pagesize": 10}, "orgs.acme.pagesize", "did you mean page_size"),
        ({"orgs__acme__breaker": {"failure": 1}}, "orgs.acme.breaker.failure", "did you mean failures"),
        ({"orgs__acme__requests_per_second": float("nan")}, "orgs.acme.requests_per_second", "more than 0"),
        ({"orgs__acme__requests_per_second": 0}, "orgs.acme.requests_per_second", "more than 0"),
        ({"orgs__acme__timezone": "Europe/Atlantis"}, "orgs.acme.timezone", "IANA"),
        ({"orgs__acme__region": "https://mypurecloud.com"}, "orgs.acme.region", "without https://"),
        ({"orgs__acme__region": "us-east-9"}, "orgs.acme.region", "us-east-1"),
        ({"orgs__acme__region": "api."}, "orgs.acme.region", "us-east-1"),
        ({"orgs__acme__region": None}, "orgs.acme.region", "base_url and login_url"),
        ({"orgs__acme__base_url": "http://example.com"}, "orgs.acme.base_url", "loopback"),
        ({"orgs__acme__base_url": "https://u:p@example.com"}, "orgs.acme.base_url", "user or password"),
        ({"orgs__acme__login_url": "https://example.com/?a=b"}, "orgs.acme.login_url", "query"),
        ({"orgs__acme__client_secret": None}, "orgs.acme.client_secret", "or client_secret_file"),
        ({"orgs__acme__client_secret": ""}, "orgs.acme.client_secret", "empty"),
        ({"orgs__acme__client_secret": "7-chars"}, "orgs.acme.client_secret", "at least 8 characters"),
        ({"orgs__acme__client_secret_file": "/nowhere"}, "orgs.acme.client_secret_file", "exactly one"),
        ({"orgs__acme__flows": ["a", "a"]}, "orgs.acme.flows", "duplicate item"),
        ({"orgs__acme__flows": ["a", " "]}, "orgs.acme.flows.1", "empty"),
        ({"orgs__acme__aggregates": "jobs"}, "orgs.acme.aggregates", "only to api: flow-aggregates"),
        ({"orgs__Acme": yaml.safe_load(MINIMAL)["orgs"]["acme"]}, "orgs.Acme", "lowercase letter"),
        ({"orgs": {}}, "orgs", "at least one"),
        ({"orgs": []}, "orgs", "section of names"),
        ({"jobs__daily__delay": "PT59M"}, "jobs.daily.delay", "at least PT1H"),
        ({"jobs__daily__delay": 3600}, "jobs.daily.delay", "ISO 8601"),
        ({"jobs__daily__lookback": "P1M"}, "jobs.daily.lookback", "no fixed length"),
        ({"jobs__daily__since": "yesterday"}, "jobs.daily.since", "a date"),
        ({"jobs__daily__since": None}, "jobs.daily.since", "a date"),
        ({"jobs__daily": {}}, "jobs.daily.since", "required"),
        ({"jobs__daily": None}, "jobs.daily.since", "required"),
        ({"jobs__daily__off_peak": "5-7"}, "jobs.daily.off_peak", "02:00-05:00"),
        ({"jobs__daily__off_peak": "02:00-02:00"}, "jobs.daily.off_peak", "null"),
        ({"jobs__daily__off_peak": "25:00-02:00"}, "jobs.daily.off_peak", "02:00-05:00"),
        ({"jobs__daily__granularity": "monthly"}, "jobs.daily.granularity", "coarser"),
        ({"jobs__daily__window": "hour"}, "jobs.daily.granularity", "hourly or auto"),
        ({"jobs__daily__window": "year"}, "jobs.daily.window", "'hour'"),
        ({"jobs__daily__orgs": ["umbrella"]}, "jobs.daily.orgs", "known orgs: acme"),
        ({"ad_hoc__a-b": {"org": "x", "from": "2024-01-01", "to": "2024-01-02"}}, "ad_hoc.a-b.org", "known"),
        (
            {"ad_hoc__x": {"org": "acme", "from": date(2024, 1, 2), "to": date(2024, 1, 2)}},
            "ad_hoc.x.to",
            "later",
        ),
        ({"ad_hoc__x": {"org": "acme", "to": date(2024, 1, 2)}}, "ad_hoc.x.from", "required"),
        ({"database__embedded": "data"}, "database.embedded", "exactly one"),
        ({"database": None}, "database.dsn", "required, or embedded"),
        ({"database__dsn": SECRET}, "database.dsn", "postgresql://"),
        ({"database__dsn": f"postgresql://u:p@{SECRET}@db/x"}, "database.dsn", "@ as %40"),
        ({"http__port": 65536}, "http.port", "at most 65535"),
        ({"log__level": "loud"}, "log.level", "'info'"),
        ({"logs": {}}, "logs", "did you mean log"),
        ({"http": 8080}, "http", "section"),
    ],
)
def test_invalid_value(changes: dict[str, Any], key: str, message: str) -> None:
    """The fault names the key and describes a valid value."""
    faults = faults_of(tree(**changes))
    assert message in faults[key]
    assert list(faults) == [key]


def test_all_faults_at_once() -> None:
    """Faults of single values and of rules are reported together."""
    faults = faults_of(
        tree(
            orgs__acme__page_size="x",
            orgs__acme__region=None,
            orgs__acme__client_secret=None,
            jobs__daily__orgs=["other"],
            jobs__daily__delay="PT1S",
            database__dsn=None,
            nonsense=1,
        )
    )
    assert list(faults) == [
        "database.dsn",
        "jobs.daily.delay",
        "jobs.daily.orgs",
        "nonsense",
        "orgs.acme.client_secret",
        "orgs.acme.page_size",
        "orgs.acme.region",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "mapping"),
        ("orgs: {acme: [}\n", "line 1"),
        (f"orgs: {{acme: {{client_secret: *{SECRET}}}}}", "line 1"),
        (f"orgs: {{acme: {{client_secret: !{SECRET} x}}}}", "line 1"),
        ("a: \x01", "UTF-8"),
        ("[" * 5000, "nested"),
        ("orgs: &all {acme: *all}", "section that contains it"),
        ("orgs: {acme: {client_id: x, flows: &all [a, *all]}}", "section that contains it"),
    ],
)
def test_invalid_yaml(tmp_path: Path, text: str, message: str) -> None:
    """The fault names the line and quotes nothing of the file."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    (fault,) = caught.value.faults
    assert fault.key == str(path)
    assert message in fault.message
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_aliases_of_sections(tmp_path: Path) -> None:
    """Aliases may be nested; a variable for one use of a section leaves the other uses unchanged."""
    text = MINIMAL.replace("acme:", "acme: &usual").replace("jobs:", "  other: *usual\njobs:")
    config = load_config(written(tmp_path, text), {"FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": "7"})
    assert {name: org.page_size for name, org in config.orgs.items()} == {"acme": 7, "other": 100}
    nested = "".join(f"x{n}: &x{n} {{a: *x{n - 1}, b: *x{n - 1}}}\n" for n in range(1, 60))
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, f"{MINIMAL}x0: &x0 {{a: 1}}\n{nested}"), {})
    assert len(caught.value.faults) == 60


def test_missing_file(tmp_path: Path) -> None:
    """A missing file, or a folder, is one fault and no traceback."""
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError) as caught:
            load_config(path, {})
        assert [fault.key for fault in caught.value.faults] == [str(path)]


def test_duplicate_keys(tmp_path: Path) -> None:
    """A duplicate key is reported with both lines, together with all other faults."""
    path = written(tmp_path, MINIMAL + "  daily: {since: 2024-01-01, delay: PT1S}\nhttp: {port: 1, port: 2}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    faults = dict(caught.value.faults)
    assert faults["jobs.daily"] == "duplicate key in lines 6 and 7; keep one"
    assert "duplicate key" in faults["http.port"]
    assert "at least PT1H" in faults["jobs.daily.delay"]


def test_impossible_date_is_a_fault(tmp_path: Path) -> None:
    """A date that the calendar does not have is reported under its key."""
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, MINIMAL.replace("2024-01-01", "2024-02-31")), {})
    assert [fault.key for fault in caught.value.faults] == ["jobs.daily.since"]

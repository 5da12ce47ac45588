"""The configuration: valid and invalid values, and the secrecy of secrets."""

import os
import traceback
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.config import Config, OffPeak, Since, config_from, load_config
from service.config.sections import Http, read_secret
from service.config.values import off_peak, since, step, url
from service.errors import ConfigError
from service.measure import Measure
from service.model import Granularity
from service.plan.granularity import WindowKind, for_window

EXAMPLE = Path(__file__).parents[3] / "config" / "flow-outcomes.example.yaml"
SECRET = "hunter2-very-secret"

MINIMAL = f"""
database: {{dsn: postgresql://outcomes@db/outcomes}}
orgs:
  acme: {{region: mypurecloud.com, client_id: me, client_secret: {SECRET}}}
jobs:
  daily: {{since: 2024-01-01}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def tree(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    """The minimal configuration with changes, given as ``orgs__acme__page_size=1``."""
    minimal: dict[str, Any] = yaml.safe_load(MINIMAL)
    for key, value in changes.items():
        *path, last = key.split("__")
        at = minimal
        for name in path:
            at = at.setdefault(name, {})
        at[last] = value
    return minimal


def faults_of(config: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        config_from(config)
    return dict(caught.value.faults)


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
    for section in sections:
        for name, info in type(section).model_fields.items():
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


def measuring(*jobs: dict[str, Any], api: str = "flow-aggregates") -> dict[str, Any]:
    """Jobs of acme, and of globex on the query builder where a job says so."""
    changed = tree(orgs__acme__api=api, orgs__globex={**tree()["orgs"]["acme"]})
    changed["jobs"] = {
        f"job_{place}": {"since": "P30D", "orgs": ["acme"], **job} for place, job in enumerate(jobs)
    }
    return changed


def test_measures_and_dimensions() -> None:
    """Dimensions are sorted; what an org's jobs measure, and how its figures are split."""
    config = config_from(
        measuring(
            {"group_by": ["mediaType", "flowVersion"]},
            {"measure": "milestones", "window": "hour", "granularity": "auto", "group_by": ["dnis"]},
            {"group_by": ["flowVersion", "mediaType"], "window": "month"},
            {"window": "month", "granularity": "monthly"},
        )
    )
    acme, globex = config.orgs["acme"], config.orgs["globex"]
    assert config.jobs["job_0"].group_by == ("flowVersion", "mediaType")
    assert acme.measures == (Measure.OUTCOMES, Measure.MILESTONES)
    assert globex.measures == (Measure.OUTCOMES,)
    assert acme.group_by(Granularity.DAILY, Measure.OUTCOMES) == ("flowVersion", "mediaType")
    assert acme.group_by(Granularity.MONTHLY, Measure.OUTCOMES) == ()
    assert acme.group_by(Granularity.HOURLY, Measure.OUTCOMES) == ()
    assert acme.group_by(Granularity.HOURLY, Measure.MILESTONES) == ("dnis",)
    assert acme.group_by(Granularity.MONTHLY, Measure.MILESTONES) == ("dnis",), "a window may become coarser"
    assert acme.group_by(Granularity.DAILY, Measure.EXECUTIONS) == ()


@pytest.mark.parametrize("window", ["hour", "day", "week", "month"])
@pytest.mark.parametrize("requested", ["auto", "hourly", "daily", "monthly"])
def test_the_granularity_of_a_jobs_windows(window: WindowKind, requested: str) -> None:
    """Is the one that planning gives them."""
    assert step(window, requested) == for_window(window, requested)


@pytest.mark.parametrize(
    ("job", "key", "message"),
    [
        ({"measure": "calls"}, "measure", "outcomes"),
        ({"group_by": ["ani"]}, "group_by", "ani would store personal data"),
        (
            {"group_by": ["mediaType", "conversationId", "sessionId"]},
            "group_by",
            "conversationId, sessionId would",
        ),
        ({"group_by": ["externalContactId"]}, "group_by", "externalContactId would"),
        ({"group_by": ["flowOutcomeValue"]}, "group_by", "must be dimensions among direction, divisionId"),
        ({"group_by": ["mediatype"]}, "group_by", "mediaType"),
        ({"group_by": ["mediaType", "mediaType"]}, "group_by", ""),
        ({"group_by": "mediaType"}, "group_by", "must be a list"),
        ({"group_by": ["mediaType"], "orgs": []}, "group_by", "which these orgs do not have: globex"),
        ({"group_by": ["mediaType"], "orgs": ["acme", "globex"]}, "group_by", "do not have: globex"),
        ({"measure": "executions", "orgs": ["globex"]}, "measure", "needs api: flow-aggregates"),
    ],
)
def test_invalid_measures_and_dimensions(job: dict[str, Any], key: str, message: str) -> None:
    """What the API lacks, what would store personal data, and what an org's API has not."""
    faults = faults_of(measuring(job))
    assert [name for name in faults if not name.startswith(f"jobs.job_0.{key}")] == []
    assert message in "".join(faults.values())


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"group_by": ["dnis"]},
        {"window": "week"},
        {"window": "month", "granularity": "auto"},
        {"window": "month", "granularity": "hourly"},
    ],
)
def test_one_grouping_for_an_org_a_granularity_and_a_measure(other: dict[str, Any]) -> None:
    """Anything else is a fault of the later job, which names the other; other orgs and measures may differ."""
    faults = faults_of(measuring({"group_by": ["mediaType"]}, other))
    assert list(faults) == ["jobs.job_1.group_by"]
    assert "jobs.job_0" in faults["jobs.job_1.group_by"]
    assert "outcomes of acme at the granularity daily" in faults["jobs.job_1.group_by"]
    for apart in ({"orgs": ["globex"]}, {"granularity": "hourly"}, {"measure": "executions"}):
        config_from(measuring({"group_by": ["mediaType"]}, {**other, "window": "day", "group_by": [], **apart}))


def test_ad_hoc_measures() -> None:
    """Only outcomes on the query builder; an entry with another measure is another one."""
    entry = {"org": "globex", "from": "2024-01-01", "to": "2024-01-02", "measure": "milestones"}
    faults = faults_of({**measuring({}), "ad_hoc": {"recount": entry}})
    assert faults == {"ad_hoc.recount.measure": "needs api: flow-aggregates, which globex does not have"}
    config = config_from(
        {**measuring({}), "ad_hoc": {"a": {**entry, "org": "acme"}, "b": {**entry, "measure": None}}}
    )
    assert config.ad_hoc["a"].content_hash != config.ad_hoc["b"].content_hash


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


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "127.8.9.1", "[::1]:9000", "localhost:1"])
def test_plain_http_for_loopback(host: str) -> None:
    """Plain http is accepted for this machine, and a trailing slash is removed."""
    assert url(f"http://{host}/") == f"http://{host}"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        "http://127.0.0.1@example.com",
        "http://localhost.example.com",
        "ftp://localhost",
        "https://",
        "https://a b",
        "https://a\nb",
        "https://a:99999",
        "http://example.com\\@localhost",
        "https://[",
        "",
    ],
)
def test_invalid_urls(text: str) -> None:
    """An invalid URL, or one that only resembles this machine, is rejected."""
    with pytest.raises(ValueError, match="must"):
        url(text)


def test_restart_needed() -> None:
    """Only the database and the HTTP address need a restart to change."""
    config = config_from(tree())
    other = config_from(tree(http__port=1, database__pool_size=9, log__level="debug", orgs__acme__page_size=9))
    assert config.restart_needed(other) == ["database.pool_size", "http.port"]
    assert config.restart_needed(config) == []


def test_empty_sections() -> None:
    """A section without keys has its defaults."""
    assert config_from(tree(http=None, log=None, ad_hoc=None, orgs__acme__breaker=None)) == config_from(tree())


def test_content_hash() -> None:
    """The digest depends on the content, not on the name or the notation."""

    def entry(**content: object) -> Config:
        plain = {"org": "acme", "from": date(2024, 3, 1), "to": "2024-04-01"}
        return config_from(
            tree(ad_hoc={"a": plain, "b": {**plain, "from": "2024-03-01"}, "c": {**plain, **content}})
        )

    ad_hoc = entry(granularity="daily").ad_hoc
    assert ad_hoc["a"].content_hash == ad_hoc["b"].content_hash != ad_hoc["c"].content_hash


def test_since_resolves() -> None:
    """A date starts with the org's day; months and years are calendar months and years."""
    berlin, now = ZoneInfo("Europe/Berlin"), datetime(2024, 3, 31, 12, tzinfo=UTC)
    assert since("2024-01-01").resolve(now, berlin) == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert since("P30D").resolve(now, berlin) == datetime(2024, 3, 1, 12, tzinfo=UTC)
    assert since("P1M").resolve(now, ZoneInfo("UTC")) == datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert since("P4Y1M").resolve(now, ZoneInfo("UTC")) == datetime(2020, 2, 29, 12, tzinfo=UTC)
    assert since("2024-01-01T06:00:00+02:00").resolve(now, berlin) == datetime(2024, 1, 1, 4, tzinfo=UTC)
    assert since("2024-01-01T06:00").resolve(now, berlin) == datetime(2024, 1, 1, 5, tzinfo=UTC)


times = st.times().map(lambda at: at.replace(second=0, microsecond=0))


@given(times, times, st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_next_open(start: Any, end: Any, at: datetime) -> None:  # noqa: ANN401
    """The result is within the hours, less than a day later, and the first such instant."""
    if start == end:
        return
    hours = OffPeak(start, end)
    opening = hours.next_open(at)
    assert hours.contains(opening)
    assert at <= opening < at + timedelta(days=1)
    if opening > at:
        assert not hours.contains(at)
        assert opening.time() == start
        assert not hours.contains(opening - timedelta(microseconds=1))


def test_off_peak_past_midnight() -> None:
    """Hours may pass midnight; the end is exclusive."""
    hours = off_peak("22:00-02:00")
    assert hours is not None
    assert [hours.contains(datetime(2024, 1, 1, hour, tzinfo=UTC)) for hour in (21, 22, 0, 1, 2)] == [
        False,
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("Reports.Example.com.", "reports.example.com"),
        ("reports:8443", "reports"),
        ("flow_outcomes", "flow_outcomes"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("[::1]", "::1"),
    ],
)
def test_host_names_are_normalized(given: str, parsed: str) -> None:
    """A name is stored as browsers send it, without its port."""
    assert Http(allowed_hosts=[given]).allowed_hosts == (parsed,)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["https://reports.example.com", "*.example.com", "a/b", "", "a b", 7, "a..b"])
def test_what_is_no_host_name_is_a_fault(given: object) -> None:
    """A URL, a wildcard or a path is not a host name."""
    with pytest.raises(ValueError, match="host name"):
        Http(allowed_hosts=[given])  # type: ignore[arg-type]

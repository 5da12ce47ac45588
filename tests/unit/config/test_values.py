"""The values of single keys."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config import Config, OffPeak, config_from
from service.config.sections import Http
from service.config.values import off_peak, since, url
from tests.support.configs import tree


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

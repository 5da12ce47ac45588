"""The command's arguments."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

import pytest

from service.simulator.command import add_arguments, config_of
from service.simulator.faults import Fault


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults() -> None:
    """One org, ten requests a second, nothing wrong."""
    config = config_of(parsed())
    assert list(config.orgs) == ["acme"]
    assert config.orgs["acme"].requests_per_second == 10
    assert parsed().now is None


def test_orgs_by_number_and_by_name() -> None:
    """Orgs are counted, or named with their secrets."""
    assert list(config_of(parsed("--orgs", "3")).orgs) == ["acme", "org_2", "org_3"]
    orgs = config_of(parsed("--orgs", "a:s1,b:s2", "--unlimited", "--timezone", "Europe/Berlin")).orgs
    assert {name: org.client_secret for name, org in orgs.items()} == {"a": "s1", "b": "s2"}
    assert orgs["a"].requests_per_second is None
    assert orgs["b"].timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        ("missing_token", "missing_token", Fault()),
        ("missing_token@3", "missing_token", Fault(page=3)),
        ("missing_tokenx2", "missing_token", Fault(times=2)),
        ("bad_count=-1@2x1", "bad_count", Fault(-1, page=2, times=1)),
        ("bad_count=null", "bad_count", Fault("null")),
        ("throttled=absentx2", "throttled", Fault("absent", times=2)),
        ("server_error=502%0.25", "server_error", Fault(502, probability=0.25)),
        ('withdrawn={"outcome":"A"}', "withdrawn", Fault({"outcome": "A"})),
    ],
)
def test_faults(text: str, name: str, fault: Fault) -> None:
    """A fault is spelled with its value, its page, how often, and its chance."""
    assert getattr(config_of(parsed("--fault", text)).orgs["acme"].faults, name) == fault


def test_the_simulated_time() -> None:
    """An instant without an offset is in UTC."""
    assert parsed("--now", "2024-01-01").now == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fault", "nonsense"),
        ("--fault", "slow%1.2.3"),
        ("--timezone", "Nowhere"),
        ("--timezone", "../x"),
        ("--now", "soon"),
        ("--port", "x"),
        ("--port", "65536"),
        ("--port", "-1"),
        ("--flows", "-3"),
        ("--rate", "0"),
        ("--orgs", "0"),
        ("--orgs", ","),
        ("--latency", "nan"),
        ("--token-lifetime", "inf"),
        ("--fault", "slow%2"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant ends with 2 and names the argument."""
    with pytest.raises(SystemExit) as ended:
        parsed(*arguments)
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err

"""The command's arguments."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

import pytest

from service.simulator.command import add_arguments
from service.simulator.faults import Fault
from service.simulator.runner import build_config


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_defaults() -> None:
    """The default is one org with ten requests per second and no faults."""
    config = build_config(parse())
    assert list(config.orgs) == ["acme"]
    assert config.orgs["acme"].requests_per_second == 10
    assert parse().now is None


def test_orgs_by_number_and_by_name() -> None:
    """``--orgs`` takes a number, or client ids with their secrets."""
    assert list(build_config(parse("--orgs", "3")).orgs) == ["acme", "org_2", "org_3"]
    orgs = build_config(parse("--orgs", "a:s1,b:s2", "--unlimited", "--timezone", "Europe/Berlin")).orgs
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
    """A fault is given with its value, its page, how often it fires, and its probability."""
    assert getattr(build_config(parse("--fault", text)).orgs["acme"].faults, name) == fault


def test_simulated_time() -> None:
    """An instant without an offset is in UTC."""
    assert parse("--now", "2024-01-01").now == datetime(2024, 1, 1, tzinfo=UTC)


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
def test_invalid_arguments(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid argument exits with 2 and is named in the message."""
    with pytest.raises(SystemExit) as exit_info:
        parse(*arguments)
    assert exit_info.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_what_the_role_sees_and_how_long_it_is_kept() -> None:
    """Everything and for ever by default."""
    plain = build_config(parse()).orgs["acme"]
    assert (plain.retention_days, plain.permitted_divisions, plain.nightly_corrections) == (None, None, False)
    arguments = ["--retention", "30", "--no-retention", "--divisions", "A,B", "--permitted-divisions", "A"]
    org = build_config(parse(*arguments, "--nightly-corrections")).orgs["acme"]
    assert (org.retention_days, org.retention_permitted, org.nightly_corrections) == (30, False, True)
    assert (org.divisions, org.permitted_divisions) == (("A", "B"), ("A",))
    with pytest.raises(SystemExit):
        parse("--divisions", ",")

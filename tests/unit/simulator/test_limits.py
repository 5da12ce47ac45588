"""Rates, holds, flights, and tokens."""

from __future__ import annotations

import base64

import pytest

from service.simulator.limits import Flight, Hold, Rate, peak_per_second
from service.simulator.oauth import Credentials, TokenRefusal, Tokens, basic_credentials, check_grant
from service.simulator.refusal import Refusal


def test_no_second_takes_more_than_the_rate() -> None:
    """The second may begin anywhere; what was refused counts too."""
    rate = Rate(3)
    assert [rate.arrive(at) for at in (0.0, 0.5, 0.9, 0.99, 1.0, 1.95)] == [True, True, True, False, False, True]
    spaced = Rate(8)
    assert all(spaced.arrive(number * 0.125) for number in range(100))


def test_without_a_limit_all_pass() -> None:
    """None is no limit."""
    rate = Rate(None)
    assert all(rate.arrive(0.0) for _ in range(1000))


def test_the_peak_is_of_any_second() -> None:
    """Half-open: what is a whole second apart is not in one second."""
    assert peak_per_second([]) == 0
    assert peak_per_second([0.0, 1.0, 2.0]) == 1
    assert peak_per_second([0.0, 0.6, 0.7, 1.5, 1.61]) == 3


def test_a_hold_is_watched() -> None:
    """What comes before Retry-After has passed is counted, but for what was on its way."""
    hold = Hold()
    hold.arrive(0.0)
    hold.tell(10.0, 2.0)
    for at in (10.05, 11.0, 11.99, 12.0):
        hold.arrive(at)
    assert hold.violations == 2


def test_a_second_flight_is_a_violation() -> None:
    """One query in the air at a time; different ones do not matter."""
    flight = Flight()
    with flight.of("a"), flight.of("b"):
        assert flight.violations == 0
        with flight.of("a"):
            assert flight.violations == 1
    with flight.of("a"):
        pass
    assert flight.violations == 1


def test_tokens_expire_and_are_revoked() -> None:
    """A token is its client's until it expires, is revoked, or never was."""
    tokens = Tokens()
    token = tokens.issue("acme", 100.0, now=0.0)
    other = tokens.issue("other", 100.0, now=0.0)
    assert tokens.check(f"Bearer {token}", 99.0) == "acme"
    assert tokens.owner(f"Bearer {token}") == "acme"
    assert tokens.owner("Bearer ?") is None
    tokens.revoke("other")
    for header, now in (
        (f"Bearer {token}", 100.0),
        (f"Bearer {other}", 0.0),
        ("Bearer ?", 0.0),
        (f"Basic {token}", 0.0),
    ):
        with pytest.raises(Refusal) as refusal:
            tokens.check(header, now)
        assert (refusal.value.status, refusal.value.code) == (401, "bad.credentials")
    with pytest.raises(Refusal):
        tokens.check(None, 0.0)
    assert tokens.issued == 2


def test_basic_credentials() -> None:
    """Only HTTP basic with a colon in it is understood."""
    good = base64.b64encode(b"id:se:cret").decode()
    assert basic_credentials(f"Basic {good}") == Credentials("id", "se:cret")
    for header in (None, "", "Bearer x", "Basic !", "Basic " + base64.b64encode(b"\xff:").decode(), "Basic aWQ="):
        assert basic_credentials(header) is None


def test_the_grant() -> None:
    """Only client credentials, in a form."""
    check_grant("application/x-www-form-urlencoded", {"grant_type": "client_credentials"})
    with pytest.raises(TokenRefusal):
        check_grant("application/json", {"grant_type": "client_credentials"})
    with pytest.raises(TokenRefusal):
        check_grant("application/x-www-form-urlencoded", {"grant_type": "password"})

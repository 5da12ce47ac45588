"""Limits, violations, tokens and credentials."""

from __future__ import annotations

import base64

import pytest

from service.simulator.api_error import ApiError
from service.simulator.limits import RateLimit, RetryAfterWatch, SingleFlightWatch, peak_per_second
from service.simulator.oauth import Credentials, TokenError, Tokens, basic_credentials, check_grant


def test_rate_limit() -> None:
    """The limit holds for any second, wherever it begins; rejected requests count."""
    rate = RateLimit(3)
    assert [rate.arrive(at) for at in (0.0, 0.5, 0.9, 0.99, 1.0, 1.95)] == [True, True, True, False, False, True]
    spaced = RateLimit(8)
    assert all(spaced.arrive(number * 0.125) for number in range(100))


def test_no_rate_limit() -> None:
    """None means no limit."""
    rate = RateLimit(None)
    assert all(rate.arrive(0.0) for _ in range(1000))


def test_peak_per_second() -> None:
    """The second is half-open: requests exactly one second apart are not in the same second."""
    assert peak_per_second([]) == 0
    assert peak_per_second([0.0, 1.0, 2.0]) == 1
    assert peak_per_second([0.0, 0.6, 0.7, 1.5, 1.61]) == 3


def test_requests_before_retry_after_are_counted() -> None:
    """Requests before Retry-After has passed are violations, except those already sent."""
    watch = RetryAfterWatch()
    watch.arrive(0.0)
    watch.start(10.0, 2.0)
    for at in (10.05, 11.0, 11.99, 12.0):
        watch.arrive(at)
    assert watch.violations == 2


def test_a_second_query_in_flight_is_a_violation() -> None:
    """The same query twice in flight is a violation; different queries are not."""
    watch = SingleFlightWatch()
    with watch.track("a"), watch.track("b"):
        assert watch.violations == 0
        with watch.track("a"):
            assert watch.violations == 1
    with watch.track("a"):
        pass
    assert watch.violations == 1


def test_tokens() -> None:
    """A token is valid until it expires or is revoked; an unknown token is invalid."""
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
        with pytest.raises(ApiError) as error:
            tokens.check(header, now)
        assert (error.value.status, error.value.code) == (401, "bad.credentials")
    with pytest.raises(ApiError):
        tokens.check(None, 0.0)
    assert tokens.issued == 2


def test_basic_credentials() -> None:
    """Only HTTP basic credentials with a colon are parsed."""
    good = base64.b64encode(b"id:se:cret").decode()
    assert basic_credentials(f"Basic {good}") == Credentials("id", "se:cret")
    for header in (None, "", "Bearer x", "Basic !", "Basic " + base64.b64encode(b"\xff:").decode(), "Basic aWQ="):
        assert basic_credentials(header) is None


def test_grant_types() -> None:
    """Only client credentials in a form are accepted."""
    check_grant("application/x-www-form-urlencoded", {"grant_type": "client_credentials"})
    with pytest.raises(TokenError):
        check_grant("application/json", {"grant_type": "client_credentials"})
    with pytest.raises(TokenError):
        check_grant("application/x-www-form-urlencoded", {"grant_type": "password"})

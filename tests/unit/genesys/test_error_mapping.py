"""The error for each response, and the redaction of its text."""

from __future__ import annotations

import base64
import html
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import (
    CursorExpiredError,
    ExtractionError,
    ForbiddenError,
    GranularityError,
    InvalidResponseError,
    QueryRefusedError,
    QueryTooLargeError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    UnauthorizedError,
)
from service.genesys.error_mapping import DEFAULT_POLICY, RETRY_AFTER_DEFAULT, error_from_response, retry_after
from service.genesys.redaction import Redactor

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def error_for(status: int, code: str = "", message: str = "") -> ExtractionError:
    body = json.dumps({"status": status, "code": code, "message": message, "contextId": "ctx-1"}).encode()
    return error_from_response(status, body, None, NOW, Redactor().redact_message)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            b"<html><head><title>502 Bad Gateway</title></head>\r\n<body><h1>x</h1></body></html>",
            "502 Bad Gateway",
        ),
        (b"\xef\xbb\xbf \n<!DOCTYPE html><TITLE lang=en>Out of\n order</TITLE><p>later", "Out of order"),
        (b"<html><style>p {x}</style><!-- a --><p>Please&nbsp;wait <b>&amp;</b> retry", "Please wait & retry"),
        (b"<html><title> </title>" + 300 * b"<p>word\n", ("word " * 16)[:79] + "…"),
        (b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>", "SlowDown"),
        (b'{"message": "<h1>Bad <i>Gateway</i></h1>"}', "Bad Gateway"),
        (b"upstream connect error", "upstream connect error"),
    ],
)
def test_a_page_in_an_error_is_one_line(body: bytes, shown: str) -> None:
    """Its title or its first words, without tags, in a bounded length."""
    error = error_from_response(502, body, None, NOW, Redactor().redact_message)
    assert isinstance(error, ServerError)
    assert str(error) == f"HTTP 502 Bad Gateway: {shown}"


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (400, "granularityTooFine", "Invalid date range for the specified granularity", GranularityError),
        (400, "bad.request", "Invalid date range for the specified granularity", GranularityError),
        (400, "cardinalityExceeded", "", QueryTooLargeError),
        (400, "cardinalityExceeded", "Too many groups for this granularity", QueryTooLargeError),
        (400, "bad.request", "Cardinality too high for the specified granularity", QueryTooLargeError),
        (400, "granularityTooFine", "The size of the interval is too large", GranularityError),
        (400, "bad.request", "The interval is too large for the granularity", GranularityError),
        (400, "bad.request", "The result set size is over the limit", QueryTooLargeError),
        (400, "response.entity.too.large", "", QueryTooLargeError),
        (413, "response.entity.too.large", "", QueryTooLargeError),
        (413, "", "413 Request Entity Too Large", RequestRejectedError),
        (400, "tenant.quota", "Your plan does not include this much history per call", QueryRefusedError),
        (400, "bad.request", "dateTo must be at most one day after dateFrom", QueryRefusedError),
        (400, "", "<h1>Bad Request</h1>", QueryRefusedError),
        (400, "invalid_client", "", RequestRejectedError),
        (400, "bad.request", "The client credentials are not valid", RequestRejectedError),
        (400, "bad.request", "You are not permitted to see this", RequestRejectedError),
        (400, "bad.request", "Invalid query: queryBuilder does not know x", RequestRejectedError),
        (400, "constraint.validation", "metrics must not be null", RequestRejectedError),
        (400, "bad.request", "The request could not be read: not valid JSON", RequestRejectedError),
        (400, "bad.request", "pageSize must be positive", RequestRejectedError),
        (400, "cursorExpired", "", CursorExpiredError),
        (410, "page.token.expired", "", CursorExpiredError),
        (400, "invalidNextPageToken", "", CursorExpiredError),
        (410, "gone", "", RequestRejectedError),
        (404, "cursorExpired", "", RequestRejectedError),
        (400, "bad.request", "", QueryRefusedError),
        (401, "bad.credentials", "", UnauthorizedError),
        (403, "missing.any.permissions", "", ForbiddenError),
        (500, "", "", ServerError),
        (504, "request.timeout", "", ServerError),
        (599, "", "", ServerError),
        (429, "", "", RateLimitedError),
        (307, "", "", InvalidResponseError),
        (418, "", "", RequestRejectedError),
        (799, "", "", ServerError),
    ],
)
def test_each_response_has_its_error(status: int, code: str, message: str, kind: type[ExtractionError]) -> None:
    """By status, and by code and message where several errors share a status."""
    error = error_for(status, code, message)
    assert type(error) is kind
    assert error.status == status


def test_the_correlation_id_is_kept_and_shown() -> None:
    """Beside the context id, and also where the body has none; secrets in it are redacted."""
    redactor = Redactor()
    redactor.add_credentials("me", "a-long-secret")
    for body, shown in ((b'{"contextId": "ctx-1"}', " [contextId ctx-1]"), (b"", "")):
        error = error_from_response(
            503, body, None, NOW, redactor.redact_message, DEFAULT_POLICY, "id a-long-secret"
        )
        assert (error.correlation_id or "").startswith("id ")
        assert "a-long-secret" not in str(error)
        assert str(error) == f"HTTP 503 Service Unavailable{shown} [ININ-Correlation-Id {error.correlation_id}]"


def test_code_and_context_id_are_kept() -> None:
    """Genesys support needs them."""
    error = error_for(503, "service.unavailable", "busy")
    assert (error.code, error.context_id) == ("service.unavailable", "ctx-1")
    assert str(error) == "HTTP 503 Service Unavailable: service.unavailable: busy [contextId ctx-1]"


def test_a_403_names_permission_and_scope() -> None:
    """As Genesys Cloud's administration spells them."""
    message = str(error_for(403))
    assert "Analytics > Query > Read" in message
    assert "analytics:query:read" in message


@given(st.integers(300, 999), st.binary(max_size=40), st.one_of(st.none(), st.text(max_size=20)))
def test_any_response_has_an_error(status: int, body: bytes, header: str | None) -> None:
    """Whatever its body and header contain."""
    error = error_from_response(status, body, header, NOW, Redactor().redact_message)
    assert len(str(error)) < 800
    if isinstance(error, RateLimitedError):
        assert 1 <= error.retry_after <= 3600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", 1),
        ("3600", 3600),
        ("3601", 3600),
        ("9" * 5000, 3600),
        ("Sat, 01 Jun 2024 12:00:30 GMT", 30),
        ("Sat, 01 Jun 2024 11:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
        (None, RETRY_AFTER_DEFAULT),
        ("", RETRY_AFTER_DEFAULT),
        ("-5", RETRY_AFTER_DEFAULT),
        ("1.5", RETRY_AFTER_DEFAULT),
        ("1e3", RETRY_AFTER_DEFAULT),
        ("NaN", RETRY_AFTER_DEFAULT),
        ("inf", RETRY_AFTER_DEFAULT),
        ("soon", RETRY_AFTER_DEFAULT),
        ("٣", RETRY_AFTER_DEFAULT),
    ],
)
def test_an_invalid_retry_after_is_bounded(header: str | None, seconds: float) -> None:
    """A default or a bound replaces an invalid value."""
    assert retry_after(header, NOW) == seconds


class TestRedaction:
    """No text has a secret."""

    SECRET = 's3cret/with+ödd"<characters'
    TOKEN = "eyJhbGciOiJIUzI1NiJ9.a-token"

    @pytest.fixture
    def redactor(self) -> Redactor:
        redactor = Redactor()
        redactor.add_credentials("client", self.SECRET)
        redactor.add_token(self.TOKEN)
        return redactor

    def test_every_spelling_is_redacted(self, redactor: Redactor) -> None:
        """Plain, in a form, in JSON, in the Basic header, and truncated."""
        encoded = base64.b64encode(f"client:{self.SECRET}".encode()).decode()
        for spelling in (
            self.SECRET,
            self.TOKEN,
            self.TOKEN[:20],
            encoded,
            "s3cret%2Fwith%2B%C3%B6dd%22%3Ccharacters",
            json.dumps(self.SECRET),
            html.escape(self.SECRET),
            str(self.SECRET.encode()),
            "s3cret%2fwith%2b%c3%b6dd%22%3ccharacters",
            json.dumps(self.SECRET).replace("/", "\\/"),
            json.dumps(self.SECRET, ensure_ascii=False).replace("<", "\\u003c"),
            html.escape(self.SECRET).replace("&quot;", "&#34;"),
            base64.b64encode(self.SECRET.encode()).decode(),
            encoded.rstrip("=").replace("/", "_").replace("+", "-"),
        ):
            message = redactor.redact_message(f"bad header {spelling}")
            assert "[redacted]" in message
            assert "s3cret" not in message
            assert self.TOKEN[:12] not in message
            assert encoded[:12] not in message
            assert "characters" not in message
            exact = redactor.redact(f"bad header {spelling}")
            assert "[redacted]" in exact or spelling == self.TOKEN[:20]

    def test_the_shortest_client_secret_is_redacted_everywhere(self) -> None:
        """Eight characters, in an error and in a rejected entry."""
        redactor = Redactor()
        redactor.add_credentials("client", "8-letter")
        for redact in (redactor.redact_message, redactor.redact):
            assert redact("no 8-letter here") == "no [redacted] here"

    def test_a_rejected_entry_loses_only_the_secret(self, redactor: Redactor) -> None:
        """The rest of its text is unchanged, also a prefix of a secret."""
        kept = f"Basic questions: bearer of bad\nnews, {self.TOKEN[:20]}, client, "
        assert redactor.redact(kept + json.dumps(self.SECRET) + self.TOKEN) == kept + '"[redacted]"[redacted]'

    def test_an_unknown_authorization_header_is_redacted(self, redactor: Redactor) -> None:
        """Also one with another client's credentials."""
        assert redactor.redact_message("Authorization: Bearer abcdef123456") == "Authorization: Bearer [redacted]"

    def test_renewed_tokens_do_not_displace_the_secret(self, redactor: Redactor) -> None:
        """Only the latest tokens are kept."""
        for number in range(100):
            redactor.add_token(f"token-number-{number}")
        assert "s3cret" not in redactor.redact_message(self.SECRET)

    @pytest.mark.parametrize("token", ["a", "e", "scope", "at", "r+"])
    def test_a_short_token_leaves_other_words_alone(self, token: str) -> None:
        """It is redacted as a complete word; all other words, and what was redacted before, stay readable."""
        redactor = Redactor()
        redactor.add_credentials("id", "dead-beef-cafe")
        redactor.add_token(token)
        text = f"the role's scopes are dated: {token}, Bearer {token} and dead-beef-cafe"
        shown = "the role's scopes are dated: [redacted], Bearer [redacted] and [redacted]"
        assert redactor.redact_message(text) == shown

    def test_messages_are_bounded_and_on_one_line(self, redactor: Redactor) -> None:
        """Control characters are escaped."""
        message = redactor.redact_message("a\nb\x00\ud800" + "x" * 1000)
        assert message.startswith("a\\nb\\x00\\ud800")
        assert len(message) == 500

    @given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=8, max_size=20))
    def test_a_secret_never_passes(self, before: str, after: str, secret: str) -> None:
        """Wherever it is in the text."""
        redactor = Redactor()
        redactor.add_token(secret)
        message = redactor.redact_message(before + secret + after, limit=10_000)
        assert secret not in message.replace("[redacted]", "\n")

"""What an error answer means, and what of it may be told."""

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
    PageError,
    QueryTooLargeError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    UnauthorizedError,
)
from service.genesys.error_mapping import RETRY_AFTER_DEFAULT, error_from_response, retry_after
from service.genesys.redaction import Redactor

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def meaning(status: int, code: str = "", message: str = "") -> ExtractionError:
    body = json.dumps({"status": status, "code": code, "message": message, "contextId": "ctx-1"}).encode()
    return error_from_response(status, body, None, NOW, Redactor().clean)


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
        (413, "", "", QueryTooLargeError),
        (400, "bad.request", "pageSize must be positive", RequestRejectedError),
        (400, "cursorExpired", "", CursorExpiredError),
        (410, "page.token.expired", "", CursorExpiredError),
        (400, "invalidNextPageToken", "", CursorExpiredError),
        (410, "gone", "", RequestRejectedError),
        (404, "cursorExpired", "", RequestRejectedError),
        (400, "bad.request", "", RequestRejectedError),
        (401, "bad.credentials", "", UnauthorizedError),
        (403, "missing.any.permissions", "", ForbiddenError),
        (500, "", "", ServerError),
        (504, "request.timeout", "", ServerError),
        (599, "", "", ServerError),
        (429, "", "", RateLimitedError),
        (307, "", "", PageError),
        (418, "", "", RequestRejectedError),
        (799, "", "", ServerError),
    ],
)
def test_each_answer_has_its_error(status: int, code: str, message: str, kind: type[ExtractionError]) -> None:
    """By status, and by code and message where several share one."""
    error = meaning(status, code, message)
    assert type(error) is kind
    assert error.status == status


def test_what_support_asks_for_is_kept() -> None:
    """Code and context id."""
    error = meaning(503, "service.unavailable", "busy")
    assert (error.code, error.context_id) == ("service.unavailable", "ctx-1")
    assert str(error) == "HTTP 503 Service Unavailable: service.unavailable: busy [contextId ctx-1]"


def test_a_403_names_permission_and_scope() -> None:
    """In the words that an administrator finds in Genesys Cloud."""
    told = str(meaning(403))
    assert "Analytics > Query > Read" in told
    assert "analytics:query:read" in told


@given(st.integers(300, 999), st.binary(max_size=40), st.one_of(st.none(), st.text(max_size=20)))
def test_any_answer_means_something(status: int, body: bytes, header: str | None) -> None:
    """Whatever stands in its body and its header."""
    error = error_from_response(status, body, header, NOW, Redactor().clean)
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
def test_retry_after_is_read_strictly(header: str | None, seconds: float) -> None:
    """A sane bound takes the place of whatever is none."""
    assert retry_after(header, NOW) == seconds


class TestRedaction:
    """No secret in any text."""

    SECRET = 's3cret/with+ödd"<characters'
    TOKEN = "eyJhbGciOiJIUzI1NiJ9.a-token"

    @pytest.fixture
    def redactor(self) -> Redactor:
        redactor = Redactor()
        redactor.add_credentials("client", self.SECRET)
        redactor.add_token(self.TOKEN)
        return redactor

    def test_every_spelling_is_found(self, redactor: Redactor) -> None:
        """As it is, in a form, in JSON, in the Basic header, and cut short."""
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
            told = redactor.clean(f"bad header {spelling}")
            assert "[redacted]" in told
            assert "s3cret" not in told
            assert self.TOKEN[:12] not in told
            assert encoded[:12] not in told
            assert "characters" not in told
            hidden = redactor.hide(f"bad header {spelling}")
            assert "[redacted]" in hidden or spelling == self.TOKEN[:20]

    def test_the_shortest_client_secret_is_hidden_everywhere(self) -> None:
        """Eight characters: in an error, and in an entry that is kept to the letter otherwise."""
        redactor = Redactor()
        redactor.add_credentials("client", "8-letter")
        for redact in (redactor.clean, redactor.hide):
            assert redact("no 8-letter here") == "no [redacted] here"

    def test_hidden_is_only_the_secret_itself(self, redactor: Redactor) -> None:
        """An entry is kept to the letter otherwise, though it begin like a secret."""
        kept = f"Basic questions: bearer of bad\nnews, {self.TOKEN[:20]}, client, "
        assert redactor.hide(kept + json.dumps(self.SECRET) + self.TOKEN) == kept + '"[redacted]"[redacted]'

    def test_an_authorization_of_somebody_else_is_none_to_tell_either(self, redactor: Redactor) -> None:
        """Whosever it is."""
        assert redactor.clean("Authorization: Bearer abcdef123456") == "Authorization: Bearer [redacted]"

    def test_many_renewals_do_not_make_it_forget_the_secret(self, redactor: Redactor) -> None:
        """Tokens come and go."""
        for number in range(100):
            redactor.add_token(f"token-number-{number}")
        assert "s3cret" not in redactor.clean(self.SECRET)

    def test_texts_are_cut_and_on_one_line(self, redactor: Redactor) -> None:
        """A log line stays one."""
        told = redactor.clean("a\nb\x00\ud800" + "x" * 1000)
        assert told.startswith("a\\nb\\x00\\ud800")
        assert len(told) == 500

    @given(st.text(max_size=20), st.text(max_size=20), st.text(min_size=8, max_size=20))
    def test_a_secret_never_passes(self, before: str, after: str, secret: str) -> None:
        """Wherever it stands."""
        redactor = Redactor()
        redactor.add_token(secret)
        told = redactor.clean(before + secret + after, limit=10_000)
        assert secret not in told.replace("[redacted]", "\n")

"""Maps an error response to one of the program's errors. Every text of the server is redacted first."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

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
from service.genesys import html_page
from service.genesys.limiter import PAUSE_MAX

RETRY_AFTER_DEFAULT = 5.0
"""Seconds to wait after a 429 whose ``Retry-After`` is absent or invalid."""
RETRY_AFTER_MIN = 1.0
CORRELATION_ID = "ININ-Correlation-Id"
"""The header of a response by which Genesys support finds the request."""
_CODE_MAX = 100

_cursor = re.compile(r"(?i)cursor|page[\W_]*token")
_granularity = re.compile(r"(?i)granularit")
_cardinality = re.compile(r"(?i)cardinalit")
_size = re.compile(r"(?i)too[\W_]*large|(?<!page)(?<!page[\W_])size")
_result_limit = re.compile(
    r"(?i)larger[\W_]than|result[\W_]*limit|limit of \d[\d,._']*+(?! (?:requests|queries))"
    r"|too[\W_]*many(?![\W_]*(?:concurrent|requests|queries))"
)
_page_size = re.compile(r"(?i)page[\W_]*size")
_other_cause = re.compile(
    # the credentials
    r"(?i)credential|unauthori[sz]ed|authori[sz]ation|authenticat|(?:access|bearer|auth)[\W_]*token|client[\W_]*(?:id|secret)"
    r"|invalid[\W_]*(?:client|grant)"
    # the permission
    r"|permission|forbidden|access[\W_]*denied|not[\W_]*(?:authori[sz]ed|permitted)|privilege|\bscopes?\b|\broles?\b"
    # the syntax of the query
    r"|syntax|malformed|\bpars(?:e|er|ed|ing)\b|\bjson\b|deseriali[sz]|constraint[\W_]*validation|invalid[\W_]*value"
    r"|(?:unknown|unrecogni[sz]ed|unsupported|missing|required|invalid)[\W_]*(?:query|field|property|parameter|metric"
    r"|dimension|filter|operator|predicate|body|request[\W_]*body)|must not be null"
    r"|query[\W_]*builder|query[\W_]*type|group[\W_]*by|time[\W_]*group|metrics[\W_]*delay|time[\W_]*zone"
    r"|predicate|flow[\W_]*(?:id|outcome)|page[\W_]*size"
    # the rate
    r"|too[\W_]*many[\W_]*(?:concurrent|requests|queries)|requests per|rate[\W_]*limit"
)

Redact = Callable[..., str]
"""``Redactor.redact_message``."""

Classify = Callable[[int, str, str], type[ExtractionError] | None]
"""The error class for a status, a code and a message; None for the default."""


class EndpointPolicy(NamedTuple):
    """How an endpoint's responses are read, where endpoints differ.

    Attributes:
        permission: what the OAuth client's role needs; a 403 names it.
        scope: what the OAuth client needs, named by a 403; None where client credentials need no scope.
        classify: the endpoint's own error classes, used before the default ones.
        limit_headers: whether the ``inin-ratelimit`` headers of its responses set the org's limit.
        breaker_exempt: whether the breaker ignores its results, which do not depend on the org's queries.
        success_counts: whether a success shows that the API works, so that the breaker may close.
        ignore_gateway: whether the breaker ignores what a gateway may have caused: a narrower query may pass.
    """

    permission: str = "Analytics > Query > Read"
    scope: str | None = "analytics:query:read"
    classify: Classify | None = None
    limit_headers: bool = False
    breaker_exempt: bool = False
    success_counts: bool = True
    ignore_gateway: bool = False

    @property
    def requirements(self) -> str:
        """Permission and scope, in words."""
        scope = "" if self.scope is None else f", the OAuth client the scope {self.scope}"
        return f"the permission {self.permission}{scope}"


DEFAULT_POLICY = EndpointPolicy()


def retry_after(header: str | None, now: datetime) -> float:
    """Seconds to pause: a whole number of seconds or an HTTP date (RFC 9110, 10.2.3), within bounds.

    Args:
        header: the value of ``Retry-After``; None where it is absent.
        now: the time from which an HTTP date counts.
    """
    if header is None:
        return RETRY_AFTER_DEFAULT
    text = header.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, IndexError, TypeError, OverflowError):
            return RETRY_AFTER_DEFAULT
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return min(max(seconds, RETRY_AFTER_MIN), PAUSE_MAX)


def error_from_response(
    status: int,
    body: bytes,
    retry_after_header: str | None,
    now: datetime,
    redact: Redact,
    policy: EndpointPolicy = DEFAULT_POLICY,
    correlation_header: str | None = None,
) -> ExtractionError:
    """The error for a response with a status other than 2xx.

    ``body`` is ``{"status", "code", "message", "contextId"}`` in both APIs (official Python SDK 269.0.0:
    ``ErrorBody``); of an HTML page the title is shown, of anything else the text.
    """
    fields = _fields(body)
    code = _text(fields.get("code"), redact, _CODE_MAX)
    context_id = _text(fields.get("contextId"), redact, _CODE_MAX)
    # The token server sends error and error_description (RFC 6749, 5.2); a gateway may send anything.
    messages = [fields[key] for key in ("message", "error_description", "description", "error") if fields.get(key)]
    text = messages[0] if messages else body.decode(errors="replace") if not fields else None
    message, shown = _text(text, redact), _text(text, redact)
    if isinstance(text, str) and html_page.is_html(page := text.encode(errors="replace")):
        message = _text(html_page.words(page), redact)
        shown = _text(html_page.title(page), redact, html_page.WORDS_MAX)
    description = ": ".join(each for each in (_title(status), code, shown) if each)
    if context_id:
        description += f" [contextId {context_id}]"
    correlation_id = _text(correlation_header, redact, _CODE_MAX)
    if correlation_id:
        description += f" [{CORRELATION_ID} {correlation_id}]"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(description, retry_after=retry_after(retry_after_header, now))
    known = status, code or "", message or ""
    kind = (policy.classify and policy.classify(*known)) or _classify(*known)
    if kind is InvalidResponseError:
        description += " (redirects are not followed)"
    if kind is ForbiddenError:
        description += f" (the client's role needs {policy.requirements})"
    return kind(description, status=status, code=code, context_id=context_id, correlation_id=correlation_id)


def _classify(status: int, code: str, message: str) -> type[ExtractionError]:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return ServerError
    if status < HTTPStatus.BAD_REQUEST:
        return InvalidResponseError  # following a redirect would send the token elsewhere
    by_status: dict[int, type[ExtractionError]] = {
        HTTPStatus.UNAUTHORIZED: UnauthorizedError,
        HTTPStatus.FORBIDDEN: ForbiddenError,
    }
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.GONE) and _cursor.search(code):
        return CursorExpiredError
    if status == HTTPStatus.BAD_REQUEST:
        refused = QueryRefusedError if may_be_too_wide(f"{code} {message}") else RequestRejectedError
        return _classify_400(code) or _classify_400(message) or refused
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and names_size(code):
        return QueryTooLargeError  # the API's own; that of a gateway has no code
    return by_status.get(status, RequestRejectedError)


def _classify_400(text: str) -> type[RequestRejectedError] | None:
    """The error class that a 400's code or message names; None where it names none."""
    if _cardinality.search(text):
        return QueryTooLargeError
    if _granularity.search(text):
        return GranularityError
    return QueryTooLargeError if names_size(text) else None


def may_be_too_wide(text: str) -> bool:
    """Whether an error's text names no credentials, permission or syntax, so that the query may be too wide."""
    return not _other_cause.search(text)


def names_size(text: str) -> bool:
    """Whether an error's text says that a query is too large, in any of the words that are known."""
    if _cardinality.search(text) or _size.search(text):
        return True
    return bool(_result_limit.search(text)) and not _page_size.search(text)


def _title(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object, redact: Redact, *limit: int) -> str | None:
    return redact(value, *limit) or None if isinstance(value, str) else None

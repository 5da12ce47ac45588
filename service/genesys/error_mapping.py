"""What an API's error answer means, as an error of ours. Every text of the server's is redacted first."""

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
    PageError,
    QueryTooLargeError,
    RateLimitedError,
    RequestRejectedError,
    ServerError,
    UnauthorizedError,
)
from service.genesys.limiter import HOLD_MAX

RETRY_AFTER_DEFAULT = 5.0
"""Seconds to wait on a 429 that does not say for how long, or says no number."""
RETRY_AFTER_MIN = 1.0
_CODE_MAX = 100

_cursor = re.compile(r"(?i)cursor|page[\W_]*token")
_granularity = re.compile(r"(?i)granularit")
_cardinality = re.compile(r"(?i)cardinalit")
_size = re.compile(r"(?i)too[\W_]*large|(?<!page)(?<!page[\W_])size")

Clean = Callable[..., str]
"""``Redactor.clean``."""

Judge = Callable[[int, str, str], type[ExtractionError] | None]
"""What a status, a code and a message stand for at an endpoint; None where that is what they usually do."""


class EndpointPolicy(NamedTuple):
    """What an endpoint's answers mean, where endpoints differ.

    Attributes:
        permission: what the client's role has to hold; a 403 says that it is missing.
        scope: what the OAuth client has to have.
        classify: its own view of an error, asked first.
        tells_limit: whether the ``inin-ratelimit`` headers of its answers rule the org's limit.
        aside: whether its failures say nothing of the org's health, so that the breaker does not count them.
        vouches: whether its answers show that the API is well, so that the breaker may close.
    """

    permission: str = "Analytics > Query > Read"
    scope: str = "analytics:query:read"
    classify: Judge | None = None
    tells_limit: bool = False
    aside: bool = False
    vouches: bool = True

    @property
    def needs(self) -> str:
        """What asking takes, in words."""
        return f"the permission {self.permission}, the OAuth client the scope {self.scope}"


USUAL = EndpointPolicy()


def retry_after(header: str | None, now: datetime) -> float:
    """Seconds to hold back for: a whole number of seconds or an HTTP date (RFC 9110, 10.2.3), within bounds."""
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
    return min(max(seconds, RETRY_AFTER_MIN), HOLD_MAX)


def error_from_response(
    status: int,
    body: bytes,
    retry_after_header: str | None,
    now: datetime,
    clean: Clean,
    rules: EndpointPolicy = USUAL,
) -> ExtractionError:
    """The error that an answer with a status other than 2xx stands for.

    ``body`` is ``{"status", "code", "message", "contextId"}`` in both APIs; anything else is taken as text.
    """
    fields = _fields(body)
    code = _text(fields.get("code"), clean, _CODE_MAX)
    context_id = _text(fields.get("contextId"), clean, _CODE_MAX)
    # The token server says error and error_description (RFC 6749, 5.2), a gateway whatever it likes.
    words = [fields[key] for key in ("message", "error_description", "description", "error") if fields.get(key)]
    message = _text(words[0] if words else body.decode(errors="replace") if not fields else None, clean)
    told = ": ".join(each for each in (_title(status), code, message) if each)
    if context_id:
        told += f" [contextId {context_id}]"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(told, retry_after=retry_after(retry_after_header, now))
    kind = (rules.classify and rules.classify(status, code or "", message or "")) or _kind(
        status, code or "", message or ""
    )
    if kind is PageError:
        told += " (a redirect, which is not followed)"
    if kind is ForbiddenError:
        told += f" (the client's role needs {rules.needs})"
    return kind(told, status=status, code=code, context_id=context_id)


def _kind(status: int, code: str, message: str) -> type[ExtractionError]:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerError
    if status < HTTPStatus.BAD_REQUEST:
        return PageError  # a redirect is never followed: it would carry the token elsewhere
    by_status: dict[int, type[ExtractionError]] = {
        HTTPStatus.UNAUTHORIZED: UnauthorizedError,
        HTTPStatus.FORBIDDEN: ForbiddenError,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: QueryTooLargeError,
    }
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.GONE) and _cursor.search(code):
        return CursorExpiredError
    if status == HTTPStatus.BAD_REQUEST:
        return _refusal(code) or _refusal(message) or RequestRejectedError
    return by_status.get(status, RequestRejectedError)


def _refusal(told: str) -> type[RequestRejectedError] | None:
    """What a 400's code says, or its message where the code leaves it open."""
    if _cardinality.search(told):
        return QueryTooLargeError
    if _granularity.search(told):
        return GranularityError
    return QueryTooLargeError if _size.search(told) else None


def _title(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _fields(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object, clean: Clean, *limit: int) -> str | None:
    return clean(value, *limit) or None if isinstance(value, str) else None

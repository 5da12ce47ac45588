"""What each of an org's APIs implements: its requests, and how its responses are read."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import msgspec

from service.errors import InvalidResponseError
from service.genesys.error_mapping import DEFAULT_POLICY, EndpointPolicy
from service.model import Page, Query

PAGES_MAX = 100_000
"""Pages of one scan: ten million entries at the default page size, hours at any limit."""
IDLE_PAGES_MAX = 100
"""Pages in a row that bring nothing new."""
_DIGEST_BYTES = 16

encode = msgspec.json.Encoder(order="deterministic").encode
"""JSON with sorted keys, so that equal queries have equal hashes."""


class ApiRequest(NamedTuple):
    """One request below ``base_url``, without its token.

    Attributes:
        method: the HTTP method.
        path: from the slash after the host.
        body: JSON; None where there is none.
        policy: how its response is read.
        once: do not retry where the server may have processed the request, and send it on a new connection.
        starts_scan: whether a scan starts with it; only such a request is checked against the off-peak hours.
        narrowable: whether a narrower query can replace it; what a gateway may have caused is then retried once.
    """

    method: str
    path: str
    body: bytes | None = None
    policy: EndpointPolicy = DEFAULT_POLICY
    once: bool = False
    starts_scan: bool = False
    narrowable: bool = False


class Response(NamedTuple):
    """A 2xx response.

    Attributes:
        body: unpacked.
        date: its ``Date``; None where that is absent or invalid.
        correlation_id: its ``ININ-Correlation-Id``; None where that is absent.
        status: its status.
    """

    body: bytes
    date: datetime | None = None
    correlation_id: str | None = None
    status: int = HTTPStatus.OK


Call = Callable[[ApiRequest], Awaitable[Response]]
"""Sends one request, with its retries."""


class Dialect(Protocol):
    """One of the APIs through which an org can be queried.

    Attributes:
        by_id: whether the API reports outcomes by id, so that their names are listed separately.
        policy: how the responses to its queries are read.
    """

    by_id: bool
    policy: EndpointPolicy

    def body(self, query: Query) -> dict[str, Any]:
        """The canonical query: the body of the request for page one."""

    def query_hash(self, query: Query) -> str:
        """SHA-256, in hex, of the org and the canonical query without its page token."""

    def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one scan, in order, up to the last.

        Raises:
            CursorExpiredError: the cursor has expired. The pages so far are void; restart from page one.
            InvalidResponseError: an invalid page. Nothing of the scan may be stored.
        """


def hash_query(org: str, body: dict[str, Any]) -> str:
    """SHA-256, in hex, of an org and the body of its query."""
    return hashlib.sha256(encode([org, body])).hexdigest()


def split_interval(interval: object) -> tuple[object, object]:
    """The two sides of ``start/end``; any other value, and None, where it is no such text."""
    if isinstance(interval, str):
        start, slash, end = interval.partition("/")
        if slash:
            return start, end
    return interval, None


class PagingCheck:
    """Rejects paging that would never end.

    That is a cursor that one scan receives twice, ``IDLE_PAGES_MAX`` pages in a row that are empty or repeat an
    earlier page, and more than ``PAGES_MAX`` pages. It keeps digests, so that memory does not grow with the length
    of the cursors and pages.

    Args:
        name: what the API calls the cursor.
    """

    def __init__(self, name: str = "cursor") -> None:
        self._name = name
        self._cursors: set[bytes] = set()
        self._contents: set[bytes] = set()
        self._pages = 0
        self._idle = 0

    def add(self, body: bytes, cursor: bytes | None, *, empty: bool) -> None:
        """Record a page that another one follows.

        Args:
            body: the page.
            cursor: the cursor of the next page as the body has it; None where the pages are numbered.
            empty: whether the page has no entries.

        Raises:
            InvalidResponseError: the paging would never end.
        """
        if cursor is not None and not _record(_digest(cursor), self._cursors):
            raise InvalidResponseError(f"the API returned the same {self._name} twice in one scan")
        self._pages += 1
        if self._pages >= PAGES_MAX:
            raise InvalidResponseError(
                f"the API returned {self._pages} pages and announced more; a scan has at most {PAGES_MAX} pages"
            )
        is_new = not empty and _record(_digest(*_without(body, cursor)), self._contents)
        self._idle = 0 if is_new else self._idle + 1
        if self._idle >= IDLE_PAGES_MAX:
            raise InvalidResponseError(
                f"the API returned {self._idle} pages in a row that are empty or repeat an earlier page"
            )


def _without(body: bytes, cursor: bytes | None) -> tuple[memoryview, memoryview]:
    """What precedes and what follows the cursor in a page."""
    view = memoryview(body)
    at = body.rfind(cursor) if cursor else -1
    return (view, view[:0]) if at < 0 or cursor is None else (view[:at], view[at + len(cursor) :])


def _digest(*parts: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _record(digest: bytes, known: set[bytes]) -> bool:
    """Add a digest; whether it is new."""
    is_new = digest not in known
    known.add(digest)
    return is_new

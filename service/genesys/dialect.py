"""What each of an org's APIs implements: its requests, and how its responses are read."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from service.errors import InvalidResponseError
from service.genesys.error_mapping import DEFAULT_POLICY, EndpointPolicy
from service.model import Page, Query

_CURSOR_DIGEST_BYTES = 16

encode = msgspec.json.Encoder(order="deterministic").encode
"""JSON with sorted keys, so that equal queries have equal hashes."""


class ApiRequest(NamedTuple):
    """One request below ``base_url``, without its token.

    Attributes:
        method: the HTTP method.
        path: from the slash after the host.
        body: JSON; None where there is none.
        policy: how its response is read.
        once: do not retry where the server may have processed the request.
        starts_scan: whether a scan starts with it; only such a request is checked against the off-peak hours.
    """

    method: str
    path: str
    body: bytes | None = None
    policy: EndpointPolicy = DEFAULT_POLICY
    once: bool = False
    starts_scan: bool = False


class Response(NamedTuple):
    """A 2xx response.

    Attributes:
        body: unpacked.
        date: its ``Date``; None where that is absent or invalid.
    """

    body: bytes
    date: datetime | None = None


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


class CursorCheck:
    """Rejects a cursor that one scan receives twice, which would never end.

    It keeps digests, so that memory does not grow with the length of the cursors.

    Args:
        name: what the API calls the cursor.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._digests: set[bytes] = set()

    def add(self, cursor: bytes) -> None:
        """Record a cursor.

        Raises:
            InvalidResponseError: the scan has received it before.
        """
        digest = hashlib.blake2b(cursor, digest_size=_CURSOR_DIGEST_BYTES).digest()
        if digest in self._digests:
            raise InvalidResponseError(f"the API returned the same {self._name} twice in one scan")
        self._digests.add(digest)

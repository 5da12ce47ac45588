"""What an API's dialect has to know: how to ask, and how to read the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from service.genesys.error_mapping import USUAL, EndpointPolicy
from service.model import Page, Query


class ApiRequest(NamedTuple):
    """One request below ``base_url``, without its token; ``body`` is JSON, None where there is none.

    ``rules`` say what its answers mean. ``once`` is for what must not be done twice: it is not sent again where it
    may have been taken though the answer did not come.
    """

    method: str
    path: str
    body: bytes | None = None
    rules: EndpointPolicy = USUAL
    once: bool = False


Call = Callable[[ApiRequest], Awaitable[bytes]]
"""Sends one request, with all the patience that is due, and gives the body of its answer."""


class Dialect(Protocol):
    """One of the APIs that an org may be asked through.

    Attributes:
        by_id: whether it knows outcomes by id, so that their names are asked for apart.
        rules: what its answers mean, and what asking takes.
    """

    by_id: bool
    rules: EndpointPolicy

    def body(self, query: Query) -> dict[str, Any]:
        """The canonical query: what page one is asked with."""

    def query_hash(self, query: Query) -> str:
        """SHA-256, in hex, of the org and the canonical query without its page token."""

    def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one scan, in order, up to the last.

        Raises:
            CursorExpiredError: the cursor has expired; whatever was yielded is void, and the caller begins again.
            PageError: a page at fault; nothing of the scan can be believed.
        """

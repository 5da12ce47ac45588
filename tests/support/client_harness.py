"""A client of the API in virtual time, and the simulated server that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from service.errors import LeaseLostError
from service.genesys import GenesysClient
from service.genesys.query_builder import PATH, QueryBuilder
from tests.support.http_double import aioresponses

API = "https://api.example"
LOGIN = "https://login.example"
TOKEN = {"access_token": "token-1", "token_type": "bearer", "expires_in": 3600}
EMPTY: dict[str, Any] = {"nextPageToken": None, "data": []}


class LoopClock:
    """The loop's virtual time."""

    def now(self) -> datetime:
        return datetime(2024, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Org:
    """A client with its events and pauses, and a simulated server."""

    def __init__(self, server: aioresponses) -> None:
        self.server = server
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        self.pauses: list[float] = []
        self.lease_lost = False
        self.client = GenesysClient(
            "acme",
            base_url=API,
            login_url=LOGIN,
            credentials=lambda: ("id", "hunter2hunter2"),
            dialect=QueryBuilder(),
            requests_per_second=10,
            query_timeout=timedelta(seconds=120),
            breaker_failures=5,
            breaker_open_for=timedelta(seconds=30),
            lease_check=self.check_lease,
            on_pause=self.pauses.append,
            emit=lambda event, **context: self.emitted.append((event, context)),
            clock=LoopClock(),
        )

    def check_lease(self) -> None:
        if self.lease_lost:
            raise LeaseLostError

    def events(self) -> list[str]:
        """The events, without those of each request."""
        return [event for event, _ in self.emitted if not event.startswith("request_")]

    def sends(self) -> int:
        return sum(event == "request_sent" for event, _ in self.emitted)

    def login(self, status: int = 200, **changed: str) -> None:
        self.server.post(f"{LOGIN}/oauth/token", status=status, payload={**TOKEN, **changed})

    def answer(
        self, payload: dict[str, Any] | None = None, *, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.server.post(API + PATH, status=status, payload=payload, headers=headers)


WithOrg = Callable[[Callable[[Org], Coroutine[Any, Any, None]]], None]

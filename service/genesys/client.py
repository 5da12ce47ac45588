"""The client of one org: every request it makes passes here, one after the other through the same gates."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from service.clock import Clock, SystemClock
from service.errors import ExtractionError, QueryTimeoutError, RateLimitedError, UnauthorizedError
from service.genesys.breaker import Breaker, Emit
from service.genesys.dialect import ApiRequest, Dialect
from service.genesys.limiter import OrgLimiter, Permit
from service.genesys.oauth import Credentials, TokenSource
from service.genesys.rate_limit_headers import RateLimitHeaders
from service.genesys.redaction import Redactor
from service.genesys.retry import Retries
from service.genesys.server_clock import ServerClock
from service.genesys.transport import Answer, HttpRequest, Transport
from service.model import Page, Query

_TOLD_MAX = 1000
"""Characters of an error's text; what the server said in it is bounded before."""


def _always() -> None:
    """Nothing forbids it."""


def _unheard(_date: datetime | None) -> None:
    """Nobody compares clocks."""


class GenesysClient:
    """Asks one org's API, within its limit, under its lease, with its token.

    On its way a request waits for the one before it with the same query hash, takes the token, waits for its turn,
    has the lease looked at, passes the breaker, and is sent; it comes this way again where a failure is worth
    another try. Make it inside the loop that will use it.

    Args:
        org: the org's name in the configuration.
        base_url: of the API, without a slash at its end.
        login_url: of the token server.
        credentials: gives client id and secret; asked at every renewal of the token.
        dialect: of the API.
        requests_per_second: the org's limit.
        query_timeout: for one request, from connecting to the last byte.
        breaker_failures: failures in a row that open the breaker.
        breaker_open_for: how long it stays open the first time.
        lease_check: called just before every send; raises ``LeaseLostError`` where this process must not send.
        on_hold: told the seconds of each 429, to be kept through a restart.
        on_date: called with the ``Date`` of each response, None where it has no valid one.
        emit: told every event with its context, ``org`` among it.
        clock: for everything but the pacing, which runs on the loop's.
        spent_ago: seconds ago that the limit may have been spent by somebody before.
    """

    def __init__(
        self,
        org: str,
        *,
        base_url: str,
        login_url: str,
        credentials: Credentials,
        dialect: Dialect,
        requests_per_second: float,
        query_timeout: timedelta,
        breaker_failures: int,
        breaker_open_for: timedelta,
        lease_check: Callable[[], None],
        on_hold: Callable[[float], None],
        emit: Emit,
        on_date: Callable[[datetime | None], None] = _unheard,
        clock: Clock | None = None,
        spent_ago: float = 0.0,
    ) -> None:
        self.org = org
        self.dialect = dialect
        self.query_timeout = query_timeout
        self._base_url = base_url.rstrip("/")
        self._lease_check = lease_check
        self._on_hold = on_hold
        self._emit: Emit = partial(emit, org=org)
        self._clock = clock or SystemClock()
        self._redactor = Redactor()
        self.limiter = OrgLimiter(requests_per_second, spent_ago=spent_ago)
        self._allowance = RateLimitHeaders(lambda: self.limiter, self._on_hold, self._emit)
        self.server_clock = ServerClock(self._clock)
        self._on_date = on_date
        self._transport = Transport(
            self._redactor, self._clock, self._allowance.observe, self.hold, self._observe_date, lease_check
        )
        self.breaker = Breaker(breaker_failures, breaker_open_for, self._clock, self._emit)
        self._tokens = TokenSource(
            login_url,
            credentials=credentials,
            send=self._once_for_body,
            redactor=self._redactor,
            clock=self._clock,
            emit=self._emit,
        )
        self._retries = Retries(self._emit, lambda: self.breaker.state == "closed")
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @property
    def requests_per_second(self) -> float:
        """The org's limit; it may be changed at any time."""
        return self.limiter.requests_per_second

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        self.limiter.requests_per_second = rate

    @property
    def max_hold(self) -> float | None:
        """Seconds: where a 429 holds the org back longer, RateLimitedError is raised. None: it is waited out."""
        return self.limiter.max_hold

    @max_hold.setter
    def max_hold(self, seconds: float | None) -> None:
        self.limiter.max_hold = seconds

    def hold(self, seconds: float) -> None:
        """Send nothing for so many seconds, such as are left of a hold from before this process."""
        self.limiter.hold(seconds)

    async def scan(self, query: Query, may_begin: Callable[[], None] = _always) -> AsyncGenerator[Page, None]:
        """The pages of one scan, in order, up to the last.

        Args:
            query: what is asked.
            may_begin: called just before the first page is asked for, each time; raises where that must not be.

        Raises:
            CursorExpiredError: the cursor has expired; what was yielded is void, and the caller begins again.
            ExtractionError: the scan cannot be completed.
            LeaseLostError: this process no longer holds the org.
        """
        query_hash = self.dialect.query_hash(query)
        before = may_begin
        date: datetime | None = None

        async def call(request: ApiRequest) -> bytes:
            nonlocal before, date
            answer = await self._call(request, query_hash=query_hash, before=before)
            before, date = _always, answer.date
            return answer.body

        try:
            async with aclosing(self.dialect.scan(query, call)) as pages:
                async for page in pages:
                    yield replace(page, date=date)
        except ExtractionError as error:
            self.clean(error)
            raise

    def clean(self, error: ExtractionError) -> None:
        """Take secrets out of an error that quotes what the server sent."""
        error.args = (self._redactor.clean(str(error), _TOLD_MAX),)

    def hide(self, text: str) -> str:
        """What the server sent, to the letter but for the org's secrets."""
        return self._redactor.hide(text)

    async def call(self, request: ApiRequest, *, query_hash: str | None = None) -> bytes:
        """The body of the answer to one request; of those with one query hash one at a time.

        Raises:
            ExtractionError: what the answer stands for, after the tries that are due.
            LeaseLostError: this process no longer holds the org.
        """
        return (await self._call(request, query_hash=query_hash)).body

    async def _call(
        self, request: ApiRequest, *, query_hash: str | None = None, before: Callable[[], None] = _always
    ) -> Answer:
        """As ``call``; ``before`` is called just before the first send, and raises where that must not be."""
        send = partial(self._authorized, request, before)
        if query_hash is None:
            return await self._retries.run(send, once=request.once)
        async with self._serialize(query_hash):
            return await self._retries.run(send, once=request.once, query_hash=query_hash)

    async def close(self) -> None:
        """Stop what the client does of its own, and close its connections."""
        await self._tokens.close()
        await self._transport.close()

    def _observe_date(self, date: datetime | None) -> None:
        self.server_clock.observe(date)
        self._on_date(date)

    @asynccontextmanager
    async def _serialize(self, query_hash: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(query_hash, asyncio.Lock())
        self._users[query_hash] += 1
        try:
            async with lock:
                yield
        finally:
            self._users[query_hash] -= 1
            if not self._users[query_hash]:
                del self._users[query_hash], self._locks[query_hash]

    async def _authorized(self, request: ApiRequest, before: Callable[[], None]) -> Answer:
        """Send with the token; once more with another one where the API refuses the first."""
        token = await self._tokens.get()
        try:
            return await self._send_guarded(self._with_token(request, token), before)
        except UnauthorizedError:
            token = await self._tokens.renew(token)
        return await self._send_guarded(self._with_token(request, token), before)

    def _with_token(self, request: ApiRequest, token: str) -> HttpRequest:
        headers = {"Authorization": f"Bearer {token}"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return HttpRequest(request.method, self._base_url + request.path, headers, request.body, request.rules)

    async def _once_for_body(self, request: HttpRequest) -> bytes:
        return (await self._send_guarded(request)).body

    async def _send_guarded(self, request: HttpRequest, before: Callable[[], None] = _always) -> Answer:
        """One send, whatever for: through limiter, lease and breaker."""
        self.breaker.check()
        began = self._clock.monotonic()
        permit = await self.limiter.acquire()
        try:
            self._emit("request_waited", seconds=self._clock.monotonic() - began)
            self._lease_check()
            before()
            rules = request.rules
            with self.breaker.aside() if rules.aside else self.breaker.guard(vouches=rules.vouches):
                return await self._send(request, permit)
        except RateLimitedError as error:
            self.limiter.hold(error.retry_after)
            self._on_hold(error.retry_after)
            self._emit("rate_limited", retry_after=error.retry_after)
            raise
        finally:
            permit.cancel()

    async def _send(self, request: HttpRequest, permit: Permit) -> Answer:
        self._emit("request_sent")
        began = self._clock.monotonic()
        status: int | str = "cancelled"
        try:
            with self._allowance.one_more():
                answer = await self._transport.send(request, permit, self.query_timeout.total_seconds())
            status = "ok"
        except QueryTimeoutError:
            status = "timeout"
            raise
        except ExtractionError as error:
            status = error.status or "broken"
            raise
        else:
            return answer
        finally:
            self._emit("request_finished", status=status, seconds=self._clock.monotonic() - began)

"""The client of one org's API: every request passes through the same limiter, lease check and breaker."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

from service.clock import Clock, SystemClock
from service.errors import ExtractionError, QueryTimeoutError, RateLimitedError, UnauthorizedError
from service.genesys.breaker import Breaker, OnStateChange, ignore_state_change
from service.genesys.dialect import ApiRequest, Dialect, Response
from service.genesys.error_mapping import CORRELATION_ID
from service.genesys.limiter import OrgLimiter, Permit
from service.genesys.network import Network
from service.genesys.oauth import Credentials, TokenSource
from service.genesys.rate_limit_headers import RateLimitHeaders
from service.genesys.redaction import Redactor
from service.genesys.retry import Retries
from service.genesys.server_clock import ServerClock
from service.genesys.transport import HttpRequest, Transport
from service.model import Page, Query
from service.telemetry import Emit, Event

_MESSAGE_MAX = 1000
_CORRELATION_ID_MAX = 100
"""Characters of an error's message; the server's text in it has a bound of its own."""


def _allow() -> None:
    """The check for a request that may always be sent."""


def _ignore_date(_date: datetime | None) -> None:
    """The callback for dates that nobody compares."""


class GenesysClient:
    """Sends requests to one org's API, within its limit, under its lease, with its token.

    A request waits for the one in flight with the same query hash, gets the token, waits for its turn under the
    limit, passes the lease check and the breaker, and is sent. A retry takes the same path. Create the client
    inside the loop that uses it.

    Args:
        org: the org's name in the configuration.
        base_url: the API's root.
        login_url: the root of the token server.
        credentials: gives client id and secret; called at every renewal of the token.
        dialect: the org's API.
        requests_per_second: the org's limit.
        rate_ceiling: a limit that the API's headers do not raise; None where they may.
        query_timeout: for one request, from connecting to the last byte.
        breaker_failures: consecutive failures that open the breaker.
        breaker_open_for: how long it stays open the first time.
        lease_check: called before every send; raises ``LeaseLostError`` where this process may not send.
        on_pause: called with the seconds of each pause after a 429, so that it survives a restart.
        emit: called with every event; its context has ``org``.
        on_date: called with the ``Date`` of each response; None where it is absent or invalid.
        on_breaker_change: called after each change of the breaker's state.
        clock: for everything but the limiter, which uses the loop's time.
        spent_ago: seconds since another process may have used up the limit.
        network: how the API and the token server are reached; directly by default.

    Attributes:
        org: the org's name.
        dialect: the org's API.
        query_timeout: as above; it may be changed at any time.
        limiter: paces the requests.
        breaker: the org's circuit breaker.
        server_clock: estimates the API's time.
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
        on_pause: Callable[[float], None],
        emit: Emit,
        on_date: Callable[[datetime | None], None] = _ignore_date,
        on_breaker_change: OnStateChange = ignore_state_change,
        clock: Clock | None = None,
        spent_ago: float = 0.0,
        rate_ceiling: float | None = None,
        network: Network | None = None,
    ) -> None:
        self.org = org
        self.dialect = dialect
        self.query_timeout = query_timeout
        self._base_url = base_url.rstrip("/")
        self._lease_check = lease_check
        self._on_pause = on_pause
        self._on_date = on_date
        self._emit: Emit = partial(emit, org=org)
        self._clock = clock or SystemClock()
        self._redactor = Redactor()
        self.limiter = OrgLimiter(requests_per_second, spent_ago=spent_ago)
        self._reported_margin = 0.0
        self.server_clock = ServerClock(self._clock)
        self._rate_limit = RateLimitHeaders(lambda: self.limiter, self._on_pause, self._emit, rate_ceiling)
        network = network or Network()
        for url in (login_url, base_url):
            if (proxy := network.route(url).proxy) is not None:
                self._redactor.add_proxy(proxy.secrets)
        self._transport = Transport(
            self._redactor,
            self._clock,
            self._rate_limit.observe,
            self.pause,
            self._observe_date,
            lease_check,
            network,
        )
        self.breaker = Breaker(breaker_failures, breaker_open_for, self._clock, self._emit, on_breaker_change)
        self._tokens = TokenSource(
            login_url,
            credentials=credentials,
            send=self._send_guarded,
            redactor=self._redactor,
            clock=self._clock,
            emit=self._emit,
        )
        self._retries = Retries(self._emit, lambda: self.breaker.state == "closed")
        self._locks: dict[str, asyncio.Lock] = {}
        self._lock_users: Counter[str] = Counter()

    @property
    def requests_per_second(self) -> float:
        """The org's limit; it may be changed at any time."""
        return self.limiter.requests_per_second

    @requests_per_second.setter
    def requests_per_second(self, rate: float) -> None:
        self.limiter.requests_per_second = rate

    @property
    def rate_ceiling(self) -> float | None:
        """A limit that the API's headers do not raise; it may be changed at any time."""
        return self._rate_limit.ceiling

    @rate_ceiling.setter
    def rate_ceiling(self, rate: float | None) -> None:
        self._rate_limit.ceiling = rate

    @property
    def max_pause(self) -> float | None:
        """Seconds; a longer pause raises RateLimitedError instead of being waited out. None: it is waited out."""
        return self.limiter.max_pause

    @max_pause.setter
    def max_pause(self, seconds: float | None) -> None:
        self.limiter.max_pause = seconds

    def pause(self, seconds: float) -> None:
        """Send nothing for so many seconds, such as what is left of a pause from before this process."""
        self.limiter.pause(seconds)

    async def request_token(self) -> None:
        """Request a token, once, where there is none.

        Raises:
            UnauthorizedError: the login server rejected the credentials.
            ExtractionError: the request failed.
        """
        await self._tokens.get()

    @asynccontextmanager
    async def slot_left_out(self) -> AsyncIterator[None]:
        """Within the context, send one request less in each second; another process sends it.

        Raises:
            RateLimitedError: the pause is longer than ``max_pause``.
        """
        permit = await self.limiter.acquire()
        try:
            yield
        finally:
            permit.sent()

    async def close(self) -> None:
        """Stop a renewal of the token, and close the connections."""
        await self._tokens.close()
        await self._transport.close()

    async def scan(
        self,
        query: Query,
        check_allowed: Callable[[], None] = _allow,
        *,
        narrowable: bool = False,
        ignore_gateway: bool = False,
    ) -> AsyncGenerator[Page, None]:
        """The pages of one scan, in order, up to the last.

        Args:
            query: what to extract.
            check_allowed: called just before each send of the first request; raises where the scan may not start.
            narrowable: whether a narrower query can replace it: what a gateway may have caused is retried once.
            ignore_gateway: whether the breaker ignores what a gateway may have caused.

        Raises:
            CursorExpiredError: the cursor has expired. The pages so far are void; restart from page one.
            ExtractionError: the scan cannot be completed.
            LeaseLostError: this process no longer holds the org.
        """
        query_hash = self.dialect.query_hash(query)
        last: Response | None = None

        async def call(request: ApiRequest) -> Response:
            nonlocal last
            check = check_allowed if request.starts_scan else _allow
            last = None
            if request.method == "POST":  # the query itself; a job's other requests do not depend on its width
                policy = request.policy._replace(ignore_gateway=ignore_gateway)
                request = request._replace(narrowable=narrowable, policy=policy)
            last = await self.call(request, query_hash=query_hash, check_allowed=check)
            return last

        try:
            async with aclosing(self.dialect.scan(query, call)) as pages:
                async for page in pages:
                    yield page
        except ExtractionError as error:
            raise self._with_correlation_id(self.redact_error(error), last) from None

    async def call(
        self, request: ApiRequest, *, query_hash: str | None = None, check_allowed: Callable[[], None] = _allow
    ) -> Response:
        """The response to one request, after its retries.

        Args:
            request: what to send.
            query_hash: of the requests with one query hash, at most one is in flight.
            check_allowed: called just before each send; raises where the request may not be sent.

        Raises:
            ExtractionError: the error of the last attempt.
            LeaseLostError: this process no longer holds the org.
        """
        send = partial(self._authorized, request, check_allowed)
        if query_hash is None:
            return await self._retries.run(send, once=request.once)
        async with self._serialize(query_hash):
            narrowable = request.narrowable
            return await self._retries.run(send, once=request.once, narrowable=narrowable, query_hash=query_hash)

    def redact(self, text: str) -> str:
        """A text of the server with the org's secrets replaced, and otherwise unchanged."""
        return self._redactor.redact(text)

    def redact_error(self, error: ExtractionError) -> ExtractionError:
        """A copy of an error that may quote the server, without the org's secrets, on one bounded line."""
        message = self._redactor.redact_message(str(error), _MESSAGE_MAX)
        return error.with_message(message).with_traceback(error.__traceback__)

    def _with_correlation_id(self, error: ExtractionError, last: Response | None) -> ExtractionError:
        """The error, with the id of the last response where it was found in that."""
        found = error.correlation_id or (last and last.correlation_id)
        if error.status is not None or not found:  # with a status it is named already
            return error
        correlation_id = self._redactor.redact_message(found, _CORRELATION_ID_MAX)
        named = error.with_message(f"{error} [{CORRELATION_ID} {correlation_id}]")
        named.correlation_id = correlation_id
        return named.with_traceback(error.__traceback__)

    def _observe_date(self, date: datetime | None) -> None:
        self.server_clock.observe(date)
        self._on_date(date)

    @asynccontextmanager
    async def _serialize(self, query_hash: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(query_hash, asyncio.Lock())
        self._lock_users[query_hash] += 1
        try:
            async with lock:
                yield
        finally:
            self._lock_users[query_hash] -= 1
            if not self._lock_users[query_hash]:
                del self._lock_users[query_hash], self._locks[query_hash]

    async def _authorized(self, request: ApiRequest, check_allowed: Callable[[], None]) -> Response:
        """Send with the token; once more with a new one where the API answers 401."""
        token = await self._tokens.get()
        try:
            return await self._send_guarded(self._with_token(request, token), check_allowed)
        except UnauthorizedError:
            token = await self._tokens.renew(token)
        return await self._send_guarded(self._with_token(request, token), check_allowed)

    def _with_token(self, request: ApiRequest, token: str) -> HttpRequest:
        headers = {"Authorization": f"Bearer {token}"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        url = self._base_url + request.path
        return HttpRequest(request.method, url, headers, request.body, request.policy, request.once)

    async def _send_guarded(self, request: HttpRequest, check_allowed: Callable[[], None] = _allow) -> Response:
        """Send once, through limiter, lease check and breaker."""
        self.breaker.check()
        began = self._clock.monotonic()
        permit = await self.limiter.acquire()
        try:
            self._emit(Event.REQUEST_WAITED, seconds=self._clock.monotonic() - began)
            if self.limiter.margin <= self._reported_margin / 2:
                self._report_margin()
            self._lease_check()
            check_allowed()
            policy, breaker = request.policy, self.breaker
            with (
                breaker.exempt()
                if policy.breaker_exempt
                else breaker.guard(success_counts=policy.success_counts, ignore_gateway=policy.ignore_gateway)
            ):
                return await self._send(request, permit)
        except RateLimitedError as error:
            self.limiter.pause(error.retry_after)
            self._on_pause(error.retry_after)
            self._emit(Event.RATE_LIMITED, retry_after=error.retry_after)
            if not self._rate_limit.is_exhausted and self.limiter.learn(permit):
                self._report_margin()
            raise
        finally:
            permit.cancel()

    def _report_margin(self) -> None:
        margin = self.limiter.margin
        if margin != self._reported_margin:
            before, self._reported_margin = self._reported_margin, margin
            self._emit(Event.RATE_LIMIT_MARGIN_CHANGED, margin=round(margin, 3), before=round(before, 3))

    async def _send(self, request: HttpRequest, permit: Permit) -> Response:
        self._emit(Event.REQUEST_SENT)
        began = self._clock.monotonic()
        status: int | str = "cancelled"
        try:
            with self._rate_limit.count_in_flight():
                response = await self._transport.send(request, permit, self.query_timeout.total_seconds())
            status = "ok"
        except QueryTimeoutError:
            status = "timeout"
            raise
        except ExtractionError as error:
            status = error.status or "broken"
            raise
        else:
            return response
        finally:
            self._emit(Event.REQUEST_FINISHED, status=status, seconds=self._clock.monotonic() - began)

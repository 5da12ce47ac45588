"""The flow-aggregates dialect with asynchronous jobs: begun, waited for, read page by page, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from service.errors import (
    CursorExpiredError,
    ExtractionError,
    LeaseLostError,
    PageError,
    QueryTimeoutError,
    QueryTooLargeError,
    ServerError,
)
from service.genesys.dialect import ApiRequest, Call
from service.genesys.error_mapping import EndpointPolicy
from service.genesys.flow_aggregates import ASKING, PERMISSION, SCOPE, FlowAggregates, decode
from service.model import Page, Query

PATH = "/api/v2/analytics/flows/aggregates/jobs"
FIRST_PAUSE, PAUSE_GROWTH, PAUSE_MAX = 0.5, 1.5, 10.0
"""Seconds before a job's state is first asked for, by how much each pause is longer, and the longest."""
CLEANING = 5.0
"""Seconds that the end of a job may take; one that cannot be deleted in time runs out by itself at the server."""
_ID_MAX = 512
_DIGEST_BYTES = 16
_ERROR_MAX = 300
_encode = msgspec.json.Encoder(order="deterministic").encode


def _judge(status: int, code: str, _message: str) -> type[ExtractionError] | None:
    """What is too large is refused; a job that is not known any more is like a cursor that is not."""
    if code == "response.entity.too.large":
        return QueryTooLargeError
    return CursorExpiredError if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) else None


_RULES = EndpointPolicy(PERMISSION, SCOPE, _judge, tells_limit=True)


class AggregatesJobs(FlowAggregates):
    """How the flow-aggregates API is asked and read, with jobs: this API's cursor pagination.

    A job is begun by one request that is not sent again where its answer was lost: it may run, and nobody would
    know its id. The scan then fails, and the same query begins no other job before the lost one must have ended,
    so there is never more than one of them unseen; the next cycle tries again. One that the API answers with a 504
    was too large, as a query would be.

    Args:
        timeout: for a job to be done; also how long one whose id was lost is taken to run.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout.total_seconds()
        self._lost: dict[str, float] = {}

    def body(self, query: Query) -> dict[str, Any]:
        """The query as the job is begun with."""
        return {**super().body(query), "pageSize": query.page_size}

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one job, up to the one without a cursor. However it ends, the job is deleted.

        Raises:
            CursorExpiredError: the job failed, was cancelled or has expired; what was yielded is void.
            QueryTooLargeError: the answer would be too large.
            QueryTimeoutError: the job was not done in time.
            PageError: a page at fault, or a cursor that came twice.
        """
        job = await self._begin(query, call)
        try:
            await self._done(job, call)
            seen: set[bytes] = set()
            cursor: str | None = None
            while True:
                entries, cursor = decode(await call(_read(job, cursor)))
                yield Page(entries, more=cursor is not None)
                if cursor is None:
                    return
                digest = hashlib.blake2b(cursor.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES).digest()
                if digest in seen:
                    raise PageError("the same cursor came twice in one job")
                seen.add(digest)
        finally:
            await _delete(job, call)

    async def _begin(self, query: Query, call: Call) -> str:
        """Begin a job, and give its path."""
        now = asyncio.get_running_loop().time
        query_hash = self.query_hash(query)
        self._lost = {each: until for each, until in self._lost.items() if until > now()}
        if query_hash in self._lost:
            raise ServerError(
                "a job may still run whose submission was not answered; the same one is begun again"
                f" in {self._lost[query_hash] - now():.0f} s at the earliest"
            )
        request = ApiRequest("POST", PATH, _encode(self.body(query)), ASKING, once=True)
        try:
            return _job_of(await _to_its_end(request, call))
        except (ServerError, QueryTimeoutError, PageError) as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise  # it was not taken
            self._lost[query_hash] = now() + self._timeout
            raise ServerError(
                f"the answer to a job's submission was lost, and it may run: {error}",
                status=error.status,
                code=error.code,
                context_id=error.context_id,
            ) from error

    async def _done(self, job: str, call: Call) -> None:
        """Wait until the job is done, asking less and less often."""
        pause = FIRST_PAUSE
        patience = asyncio.timeout(self._timeout)
        try:
            async with patience:
                while True:
                    await asyncio.sleep(pause)
                    if _is_done(await call(ApiRequest("GET", job, rules=_RULES))):
                        return
                    pause = min(pause * PAUSE_GROWTH, PAUSE_MAX)
        except TimeoutError:
            if not patience.expired():
                raise
            raise QueryTimeoutError(f"the job was not done within {self._timeout:g} s") from None


async def _to_its_end(request: ApiRequest, call: Call) -> bytes:
    """The answer to a submission; one that is cancelled midway is followed a little, to delete what it began."""
    submitting = asyncio.ensure_future(call(request))
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        with contextlib.suppress(ExtractionError, LeaseLostError, TimeoutError):
            async with asyncio.timeout(CLEANING):
                await _delete(_job_of(await submitting), call)
        submitting.cancel()
        raise


async def _delete(job: str, call: Call) -> None:
    """Delete a job, where that is to be had; what is left of it runs out by itself."""
    with contextlib.suppress(ExtractionError, LeaseLostError, TimeoutError):
        async with asyncio.timeout(CLEANING):
            await call(ApiRequest("DELETE", job, rules=_RULES))


def _read(job: str, cursor: str | None) -> ApiRequest:
    asked = "" if cursor is None else f"?cursor={quote(cursor, safe='', errors='surrogatepass')}"
    return ApiRequest("GET", f"{job}/results{asked}", rules=_RULES)


def _job_of(answer: bytes) -> str:
    """The path of the job that was begun."""
    fields = _fields(answer)
    job_id = fields.get("jobId")
    if not isinstance(job_id, str) or not job_id.isascii() or not job_id.isprintable():
        raise PageError("the answer to a job's submission holds no jobId")
    if not 0 < len(job_id) <= _ID_MAX or not job_id.strip("."):
        raise PageError("the answer to a job's submission holds a jobId that cannot be one")
    return f"{PATH}/{quote(job_id, safe='')}"


def _is_done(answer: bytes) -> bool:
    fields = _fields(answer)
    state, told = fields.get("state"), fields.get("errorMessage")
    reason = f": {told[:_ERROR_MAX]}" if isinstance(told, str) and told else ""
    match state:
        case "FULFILLED":
            return True
        case "QUEUED" | "PENDING":
            return False
        case "FAILED" if "too large" in reason or "too.large" in reason:
            raise QueryTooLargeError(f"the job failed{reason}")
        case "FAILED" | "CANCELLED" | "EXPIRED":
            raise CursorExpiredError(f"the job is {state}{reason}")
        case _:
            raise PageError(f"the job is in a state that is not known: {str(state)[:40]}")


def _fields(answer: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise PageError("the answer is not JSON, or was cut short") from None
    if not isinstance(found, dict):
        raise PageError("the answer is no JSON object")
    return found

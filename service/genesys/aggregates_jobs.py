"""The flow-aggregates dialect with asynchronous jobs: submitted, polled, read page by page, deleted.

``POST /api/v2/analytics/flows/aggregates/jobs`` and the paths below it (official Python SDK 269.0.0:
``FlowsApi``). That the last page has no cursor is not documented; it is assumed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from service.errors import (
    ConnectionFailedError,
    CursorExpiredError,
    ExtractionError,
    InvalidResponseError,
    JobFailedError,
    LeaseLostError,
    NotConnectedError,
    QueryTimeoutError,
    QueryTooLargeError,
    ServerError,
)
from service.genesys.dialect import ApiRequest, Call, PagingCheck, encode
from service.genesys.error_mapping import EndpointPolicy, may_be_too_wide, names_size
from service.genesys.flow_aggregates import PERMISSION, POLICY, TOO_LARGE, FlowAggregates, decode
from service.model import Page, Query

PATH = "/api/v2/analytics/flows/aggregates/jobs"
POLL_FIRST, POLL_GROWTH, POLL_MAX = 0.5, 1.5, 10.0
"""Seconds before the first poll, the factor from one poll to the next, and the most seconds between two."""
DELETE_TIMEOUT = 5.0
"""Seconds to delete a job; the server expires one that could not be deleted."""
_ID_MAX = 512
_ERROR_MAX = 300


def _classify(status: int, code: str, _message: str) -> type[ExtractionError] | None:
    """The classes of queries; an unknown job is an expired cursor."""
    if code == TOO_LARGE:
        return QueryTooLargeError
    return CursorExpiredError if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE) else None


_JOB_POLICY = EndpointPolicy(PERMISSION, None, _classify, limit_headers=True)


class AggregatesJobs(FlowAggregates):
    """The flow-aggregates API with jobs, which are its cursor pagination.

    A submission is sent once: where its response is lost, the job may run under an unknown id. The scan then
    fails, and the same query submits no other job until ``timeout`` has passed, so that at most one lost job runs.
    After a 504 no job is assumed to run. A query over more than one bucket is narrowed then, as it is after a lost
    response.

    Args:
        timeout: for a job to be fulfilled, and for a lost one to end.
    """

    def __init__(self, timeout: timedelta) -> None:
        self._timeout = timeout.total_seconds()
        self._lost: dict[str, float] = {}

    def body(self, query: Query) -> dict[str, Any]:
        """The body of the submission."""
        return {**super().body(query), "pageSize": query.page_size}

    async def scan(self, query: Query, call: Call) -> AsyncGenerator[Page, None]:
        """The pages of one job, up to the one without a cursor. The job is deleted in any case.

        Raises:
            JobFailedError: the job failed; the query may be too wide.
            CursorExpiredError: the job was cancelled or has expired; the pages so far are void.
            QueryTooLargeError: the result would be too large.
            QueryTimeoutError: the job was not fulfilled in time.
            InvalidResponseError: an invalid page, or paging without an end.
        """
        job = await self._submit(query, call)
        try:
            await self._wait(job, call)
            paging = PagingCheck()
            cursor: str | None = None
            while True:
                response = await call(_results_request(job, cursor))
                entries, cursor = decode(response.body, query.measure, query.group_by, response.status)
                if cursor is not None:
                    paging.add(response.body, json.dumps(cursor).encode(), empty=not entries)
                yield Page(entries, more=cursor is not None, date=response.date)
                if cursor is None:
                    return
        finally:
            await _delete(job, call)

    async def _submit(self, query: Query, call: Call) -> str:
        """Submit a job; its path."""
        now = asyncio.get_running_loop().time
        query_hash = self.query_hash(query)
        self._lost = {each: until for each, until in self._lost.items() if until > now()}
        if query_hash in self._lost:
            raise ServerError(
                "the job of a lost submission may still run; the query can be submitted again in"
                f" {self._lost[query_hash] - now():.0f} s"
            )
        request = ApiRequest("POST", PATH, encode(self.body(query)), POLICY, once=True, starts_scan=True)
        try:
            return _job_path(await _call_and_clean_up(request, call))
        except (ServerError, ConnectionFailedError, QueryTimeoutError, InvalidResponseError) as error:
            not_accepted = error.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
            if not_accepted or isinstance(error, NotConnectedError):
                raise  # the server did not accept the submission, or did not receive it
            self._lost[query_hash] = now() + self._timeout
            lost = (QueryTimeoutError if isinstance(error, QueryTimeoutError) else ServerError)(
                f"the response to a job submission was lost, and the job may run: {error}",
                status=error.status,
                code=error.code,
                context_id=error.context_id,
                correlation_id=error.correlation_id,
            )
            lost.while_waiting = error.while_waiting
            raise lost from error

    async def _wait(self, job: str, call: Call) -> None:
        """Poll the job, at growing intervals, until it is fulfilled."""
        pause = POLL_FIRST
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                while True:
                    await asyncio.sleep(pause)
                    if _is_fulfilled((await call(ApiRequest("GET", job, policy=_JOB_POLICY))).body):
                        return
                    pause = min(pause * POLL_GROWTH, POLL_MAX)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise QueryTimeoutError(f"job not fulfilled within {self._timeout:g} s") from None


async def _call_and_clean_up(request: ApiRequest, call: Call) -> bytes:
    """The response to a submission. When cancelled, it waits ``DELETE_TIMEOUT`` for the job's id to delete it."""
    submission = asyncio.ensure_future(call(request))
    try:
        return (await asyncio.shield(submission)).body
    except asyncio.CancelledError:
        with contextlib.suppress(ExtractionError, LeaseLostError, TimeoutError):
            async with asyncio.timeout(DELETE_TIMEOUT):
                await _delete(_job_path((await submission).body), call)
        submission.cancel()
        raise


async def _delete(job: str, call: Call) -> None:
    """Delete a job; a failure is ignored, since the server expires jobs."""
    with contextlib.suppress(ExtractionError, LeaseLostError, TimeoutError):
        async with asyncio.timeout(DELETE_TIMEOUT):
            await call(ApiRequest("DELETE", job, policy=_JOB_POLICY))


def _results_request(job: str, cursor: str | None) -> ApiRequest:
    parameters = "" if cursor is None else f"?cursor={quote(cursor, safe='', errors='surrogatepass')}"
    return ApiRequest("GET", f"{job}/results{parameters}", policy=_JOB_POLICY)


def _job_path(body: bytes) -> str:
    """The path of the submitted job."""
    job_id = _fields(body).get("jobId")
    if not isinstance(job_id, str) or not job_id.isascii() or not job_id.isprintable():
        raise InvalidResponseError("the response to a job submission has no jobId")
    if not 0 < len(job_id) <= _ID_MAX or not job_id.strip("."):
        raise InvalidResponseError("the response to a job submission has an invalid jobId")
    return f"{PATH}/{quote(job_id, safe='')}"


def _is_fulfilled(body: bytes) -> bool:
    fields = _fields(body)
    state, message = fields.get("state"), fields.get("errorMessage")
    reason = f": {message[:_ERROR_MAX]}" if isinstance(message, str) and message else ""
    match state:
        case "FULFILLED":
            return True
        case "QUEUED" | "PENDING":
            return False
        case "FAILED" if names_size(reason):
            raise QueryTooLargeError(f"job failed{reason}")
        case "FAILED" if may_be_too_wide(reason):
            raise JobFailedError(f"job failed{reason}", code="job.failed")
        case "FAILED" | "CANCELLED" | "EXPIRED":
            raise CursorExpiredError(f"job is {state}{reason}")
        case _:
            raise InvalidResponseError(f"job has an unknown state: {str(state)[:40]}")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise InvalidResponseError("response is truncated or not JSON") from None
    if not isinstance(value, dict):
        raise InvalidResponseError("response is not a JSON object")
    return value

"""Jobs of the flow-aggregates API: begun once, waited for, read to the end, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.errors import (
    CircuitOpenError,
    CursorExpiredError,
    ExtractionError,
    LeaseLostError,
    PageError,
    QueryTimeoutError,
    QueryTooLargeError,
    ServerError,
)
from service.genesys.aggregates_jobs import PATH, AggregatesJobs
from service.genesys.dialect import ApiRequest
from service.model import Granularity, Query, Span

Run = Callable[..., Any]
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 250, None, DAY)
JOB = f"{PATH}/j-1"


class Server:
    """Answers by request, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent: list[ApiRequest] = []
        self.states = ["QUEUED", "PENDING", "FULFILLED"]
        self.pages: list[dict[str, Any]] = [{"results": []}]
        self.begin: Callable[[], Awaitable[dict[str, Any]]] = self.begun
        self.delete: ExtractionError | LeaseLostError | None = None

    @staticmethod
    async def begun() -> dict[str, Any]:
        return {"jobId": "j-1"}

    async def call(self, request: ApiRequest) -> bytes:
        self.asked.append(f"{request.method} {request.path}")
        self.sent.append(request)
        if request.method == "POST":
            return json.dumps(await self.begin()).encode()
        if request.method == "DELETE":
            if self.delete is not None:
                raise self.delete
            return b""
        if "/results" in request.path:
            return json.dumps(self.pages.pop(0)).encode()
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return json.dumps({"state": state, "errorMessage": "because"}).encode()

    async def scan(self, dialect: AggregatesJobs | None = None) -> int:
        """How many pages a scan had."""
        dialect = dialect or AggregatesJobs(timedelta(minutes=10))
        async with aclosing(dialect.scan(QUERY, self.call)) as pages:
            return len([page async for page in pages])


def fails_with(error: Exception) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def fail() -> dict[str, Any]:
        raise error

    return fail


def test_a_job_from_begin_to_end(in_virtual_time: Run) -> None:
    """One request a page, in order, to the page without a cursor; then it is deleted."""
    server = Server()
    server.pages = [{"results": [], "cursor": "a/ü="}, {"results": [], "cursor": "b"}, {"results": []}]
    assert in_virtual_time(server.scan()) == 3
    assert server.asked == [
        f"POST {PATH}",
        *[f"GET {JOB}"] * 3,
        f"GET {JOB}/results",
        f"GET {JOB}/results?cursor=a%2F%C3%BC%3D",
        f"GET {JOB}/results?cursor=b",
        f"DELETE {JOB}",
    ]
    assert server.sent[0].once
    assert json.loads(server.sent[0].body or b"")["pageSize"] == 250


def test_its_state_is_asked_for_less_and_less_often(in_virtual_time: Run) -> None:
    """Up to the job's time; then it is deleted and given up."""
    server = Server()
    server.states = ["PENDING"]
    with pytest.raises(QueryTimeoutError, match="600 s"):
        in_virtual_time(server.scan())
    assert server.asked.count(f"GET {JOB}") < 80
    assert server.asked[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_a_job_that_ended_otherwise_begins_again(in_virtual_time: Run, state: str) -> None:
    """As an expired cursor does; the server's words are told."""
    server = Server()
    server.states = ["QUEUED", state]
    with pytest.raises(CursorExpiredError, match=f"{state}: because"):
        in_virtual_time(server.scan())
    assert server.asked[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize("state", ["DONE", None, 5])
def test_a_state_that_is_not_known_is_a_fault(in_virtual_time: Run, state: Any) -> None:  # noqa: ANN401 - JSON
    """It is neither waited for nor believed."""
    server = Server()
    server.states = [state]
    with pytest.raises(PageError, match="not known"):
        in_virtual_time(server.scan())


def test_the_same_cursor_twice_is_a_fault(in_virtual_time: Run) -> None:
    """Not a reason to loop."""
    server = Server()
    server.pages = [{"results": [], "cursor": cursor} for cursor in ("a", "b", "a", "b")]
    with pytest.raises(PageError, match="twice"):
        in_virtual_time(server.scan())
    assert server.asked[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize("error", [ServerError("gone"), QueryTimeoutError("late"), PageError("cut short")])
def test_a_lost_submission_is_not_repeated_while_it_may_run(in_virtual_time: Run, error: ExtractionError) -> None:
    """It may have begun a job that nobody can name: at most one of them is ever unseen."""

    async def main() -> None:
        server, dialect = Server(), AggregatesJobs(timedelta(minutes=10))
        server.begin = fails_with(error)
        with pytest.raises(ServerError, match="submission was lost"):
            await server.scan(dialect)
        server.begin = server.begun
        await asyncio.sleep(590)
        with pytest.raises(ServerError, match="may still run"):
            await server.scan(dialect)
        assert server.asked == [f"POST {PATH}"]
        await asyncio.sleep(11)
        assert await server.scan(dialect) == 1

    in_virtual_time(main())


@pytest.mark.parametrize(
    "error",
    [ServerError("busy", status=503), QueryTooLargeError("too large"), CircuitOpenError("open", retry_after=1)],
)
def test_what_was_not_taken_is_not_lost(in_virtual_time: Run, error: ExtractionError) -> None:
    """The next one may begin at once."""

    async def main() -> None:
        server, dialect = Server(), AggregatesJobs(timedelta(minutes=10))
        server.begin = fails_with(error)
        with pytest.raises(type(error)):
            await server.scan(dialect)
        server.begin = server.begun
        assert await server.scan(dialect) == 1

    in_virtual_time(main())


@pytest.mark.parametrize("answer", [{}, {"jobId": ""}, {"jobId": 5}, {"jobId": ".."}, {"jobId": "ü"}])
def test_a_job_without_a_name_is_lost(in_virtual_time: Run, answer: dict[str, Any]) -> None:
    """As if the answer had not come."""
    server = Server()

    async def begun() -> dict[str, Any]:
        return answer

    server.begin = begun
    with pytest.raises(ServerError, match="lost"):
        in_virtual_time(server.scan())


def test_a_scan_that_is_stopped_deletes_its_job(in_virtual_time: Run) -> None:
    """While it waits; and where the submission is under way, its answer is waited for a little."""

    async def main() -> None:
        server = Server()
        server.states = ["PENDING"]
        scan = asyncio.create_task(server.scan())
        await asyncio.sleep(5)
        scan.cancel()
        await asyncio.gather(scan, return_exceptions=True)
        assert server.asked[-1] == f"DELETE {JOB}"

        async def slow() -> dict[str, Any]:
            await asyncio.sleep(3)
            return {"jobId": "j-1"}

        server = Server()
        server.begin = slow
        scan = asyncio.create_task(server.scan())
        await asyncio.sleep(1)
        scan.cancel()
        await asyncio.gather(scan, return_exceptions=True)
        assert scan.cancelled()
        assert server.asked == [f"POST {PATH}", f"DELETE {JOB}"]

    in_virtual_time(main())


def test_whoever_reads_no_further_deletes_it_too(in_virtual_time: Run) -> None:
    """The generator is closed."""

    async def main() -> None:
        server = Server()
        server.pages = [{"results": [], "cursor": "a"}]
        async with aclosing(AggregatesJobs(timedelta(minutes=1)).scan(QUERY, server.call)) as pages:
            async for _ in pages:
                break
        assert server.asked[-1] == f"DELETE {JOB}"

    in_virtual_time(main())


@pytest.mark.parametrize("error", [ServerError("gone"), LeaseLostError("taken"), CursorExpiredError("not found")])
def test_a_job_that_cannot_be_deleted_costs_nothing(
    in_virtual_time: Run, error: ExtractionError | LeaseLostError
) -> None:
    """It runs out by itself."""
    server = Server()
    server.delete = error
    assert in_virtual_time(server.scan()) == 1

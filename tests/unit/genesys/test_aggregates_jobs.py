"""Jobs of the flow-aggregates API: submitted once, polled, read to the end, deleted."""

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
    ConnectionFailedError,
    CursorExpiredError,
    ExtractionError,
    InvalidResponseError,
    LeaseLostError,
    NotConnectedError,
    QueryRefusedError,
    QueryTimeoutError,
    QueryTooLargeError,
    ServerError,
)
from service.genesys.aggregates_jobs import PATH, AggregatesJobs
from service.genesys.dialect import ApiRequest, Response
from service.model import Granularity, Query, Span

Run = Callable[..., Any]
DAY = Span(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
QUERY = Query("acme", DAY, Granularity.DAILY, "UTC", (), 250, None, DAY)
JOB = f"{PATH}/j-1"
GROUP = {
    "group": {"flowId": "f1", "flowOutcomeId": "o1", "flowOutcomeValue": "SUCCESS"},
    "data": [
        {
            "interval": "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
            "metrics": [{"metric": "nFlowOutcome", "stats": {"count": 1}}],
        }
    ],
}


class Server:
    """A job server that records its requests."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.sent: list[ApiRequest] = []
        self.states = ["QUEUED", "PENDING", "FULFILLED"]
        self.message: str | None = "because"
        self.pages: list[dict[str, Any]] = [{"results": []}]
        self.submit: Callable[[], Awaitable[dict[str, Any]]] = self.accepted
        self.delete: ExtractionError | LeaseLostError | None = None

    @staticmethod
    async def accepted() -> dict[str, Any]:
        return {"jobId": "j-1"}

    async def call(self, request: ApiRequest) -> Response:
        self.requested.append(f"{request.method} {request.path}")
        self.sent.append(request)
        if request.method == "POST":
            return Response(json.dumps(await self.submit()).encode())
        if request.method == "DELETE":
            if self.delete is not None:
                raise self.delete
            return Response(b"")
        if "/results" in request.path:
            return Response(json.dumps(self.pages.pop(0)).encode())
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Response(json.dumps({"state": state, "errorMessage": self.message}).encode())

    async def scan(self, dialect: AggregatesJobs | None = None) -> int:
        """The number of pages of a scan."""
        dialect = dialect or AggregatesJobs(timedelta(minutes=10))
        async with aclosing(dialect.scan(QUERY, self.call)) as pages:
            return len([page async for page in pages])


def fails_with(error: Exception) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def fail() -> dict[str, Any]:
        raise error

    return fail


def test_a_job_from_submission_to_deletion(in_virtual_time: Run) -> None:
    """One request a page, in order, up to the page without a cursor; then the job is deleted."""
    server = Server()
    server.pages = [{"results": [], "cursor": "a/ü="}, {"results": [], "cursor": "b"}, {"results": []}]
    assert in_virtual_time(server.scan()) == 3
    assert server.requested == [
        f"POST {PATH}",
        *[f"GET {JOB}"] * 3,
        f"GET {JOB}/results",
        f"GET {JOB}/results?cursor=a%2F%C3%BC%3D",
        f"GET {JOB}/results?cursor=b",
        f"DELETE {JOB}",
    ]
    assert server.sent[0].once
    assert json.loads(server.sent[0].body or b"")["pageSize"] == 250


@pytest.mark.parametrize(
    "message",
    [
        "The response is too large",
        "Result set is larger than result limit of 30000",
        "exceeds the limit of 30000 results",
        "Too many results",
    ],
)
def test_a_job_that_fails_for_its_size_is_split(in_virtual_time: Run, message: str) -> None:
    """By the same words as a query."""
    server = Server()
    server.states, server.message = ["FAILED"], message
    with pytest.raises(QueryTooLargeError):
        in_virtual_time(server.scan())
    assert server.requested[-1] == f"DELETE {JOB}"


def test_the_interval_between_polls_grows(in_virtual_time: Run) -> None:
    """At the timeout the job is deleted, and the scan fails."""
    server = Server()
    server.states = ["PENDING"]
    with pytest.raises(QueryTimeoutError, match="600 s"):
        in_virtual_time(server.scan())
    assert server.requested.count(f"GET {JOB}") < 80
    assert server.requested[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize(
    ("message", "narrowed"),
    [("the query could not be run", True), (None, True), ("the permission is missing", False)],
)
def test_a_job_that_fails_in_unforeseen_words_is_narrowed(
    in_virtual_time: Run, message: str | None, *, narrowed: bool
) -> None:
    """As a query that is refused so; one bucket is submitted again."""
    server = Server()
    server.states, server.message = ["FAILED"], message
    with pytest.raises(CursorExpiredError, match=r"FAILED|job failed") as raised:
        in_virtual_time(server.scan())
    assert isinstance(raised.value, QueryRefusedError) == narrowed
    assert server.requested[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_job_that_was_not_fulfilled_restarts_the_scan(in_virtual_time: Run, state: str) -> None:
    """As an expired cursor does; the error has the server's message."""
    server = Server()
    server.states = ["QUEUED", state]
    with pytest.raises(CursorExpiredError, match=f"{state}: because"):
        in_virtual_time(server.scan())
    assert server.requested[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize("state", ["DONE", None, 5])
def test_an_unknown_state_is_invalid(in_virtual_time: Run, state: Any) -> None:  # noqa: ANN401 - JSON
    """The job is not polled again."""
    server = Server()
    server.states = [state]
    with pytest.raises(InvalidResponseError, match="unknown state"):
        in_virtual_time(server.scan())


def test_a_repeated_cursor_is_invalid(in_virtual_time: Run) -> None:
    """The scan does not loop."""
    server = Server()
    server.pages = [{"results": [], "cursor": cursor} for cursor in ("a", "b", "a", "b")]
    with pytest.raises(InvalidResponseError, match="twice"):
        in_virtual_time(server.scan())
    assert server.requested[-1] == f"DELETE {JOB}"


@pytest.mark.parametrize(
    "error", [ConnectionFailedError("gone"), QueryTimeoutError("late"), InvalidResponseError("truncated")]
)
def test_a_lost_submission_is_not_repeated_while_its_job_may_run(
    in_virtual_time: Run, error: ExtractionError
) -> None:
    """At most one job with an unknown id runs."""

    async def main() -> None:
        server, dialect = Server(), AggregatesJobs(timedelta(minutes=10))
        server.submit = fails_with(error)
        kind = QueryTimeoutError if isinstance(error, QueryTimeoutError) else ServerError
        with pytest.raises(kind, match="job submission was lost"):
            await server.scan(dialect)
        server.submit = server.accepted
        await asyncio.sleep(590)
        with pytest.raises(ServerError, match="may still run"):
            await server.scan(dialect)
        assert server.requested == [f"POST {PATH}"]
        await asyncio.sleep(11)
        assert await server.scan(dialect) == 1

    in_virtual_time(main())


@pytest.mark.parametrize(
    "error",
    [
        ServerError("busy", status=503),
        NotConnectedError("no proxy"),
        QueryTooLargeError("too large"),
        CircuitOpenError("open", retry_after=1),
    ],
)
def test_a_rejected_submission_is_not_lost(in_virtual_time: Run, error: ExtractionError) -> None:
    """The next one may be sent at once."""

    async def main() -> None:
        server, dialect = Server(), AggregatesJobs(timedelta(minutes=10))
        server.submit = fails_with(error)
        with pytest.raises(type(error)):
            await server.scan(dialect)
        server.submit = server.accepted
        assert await server.scan(dialect) == 1

    in_virtual_time(main())


@pytest.mark.parametrize("fields", [{}, {"jobId": ""}, {"jobId": 5}, {"jobId": ".."}, {"jobId": "ü"}])
def test_a_submission_without_a_valid_id_is_lost(in_virtual_time: Run, fields: dict[str, Any]) -> None:
    """As if there had been no response."""
    server = Server()

    async def accepted() -> dict[str, Any]:
        return fields

    server.submit = accepted
    with pytest.raises(ServerError, match="lost"):
        in_virtual_time(server.scan())


def test_a_cancelled_scan_deletes_its_job(in_virtual_time: Run) -> None:
    """While it polls, and while it submits: it waits a few seconds for the id."""

    async def main() -> None:
        server = Server()
        server.states = ["PENDING"]
        scan = asyncio.create_task(server.scan())
        await asyncio.sleep(5)
        scan.cancel()
        await asyncio.gather(scan, return_exceptions=True)
        assert server.requested[-1] == f"DELETE {JOB}"

        async def slow() -> dict[str, Any]:
            await asyncio.sleep(3)
            return {"jobId": "j-1"}

        server = Server()
        server.submit = slow
        scan = asyncio.create_task(server.scan())
        await asyncio.sleep(1)
        scan.cancel()
        await asyncio.gather(scan, return_exceptions=True)
        assert scan.cancelled()
        assert server.requested == [f"POST {PATH}", f"DELETE {JOB}"]

    in_virtual_time(main())


def test_closing_the_generator_deletes_the_job(in_virtual_time: Run) -> None:
    """Also where only some of the pages were read."""

    async def main() -> None:
        server = Server()
        server.pages = [{"results": [], "cursor": "a"}]
        async with aclosing(AggregatesJobs(timedelta(minutes=1)).scan(QUERY, server.call)) as pages:
            async for _ in pages:
                break
        assert server.requested[-1] == f"DELETE {JOB}"

    in_virtual_time(main())


@pytest.mark.parametrize("error", [ServerError("gone"), LeaseLostError("lost"), CursorExpiredError("not found")])
def test_a_failed_deletion_is_ignored(in_virtual_time: Run, error: ExtractionError | LeaseLostError) -> None:
    """The server expires the job."""
    server = Server()
    server.delete = error
    assert in_virtual_time(server.scan()) == 1


@pytest.mark.parametrize("results", [[], [GROUP]], ids=["empty", "repeated"])
def test_pages_without_an_end(in_virtual_time: Run, results: list[Any]) -> None:
    """A hundred pages in a row that bring nothing new fail the scan; the job is deleted."""
    server = Server()
    server.pages = [{"results": results, "cursor": f"c{number}ü"} for number in range(200)]
    with pytest.raises(InvalidResponseError, match="100 pages in a row"):
        in_virtual_time(server.scan())
    assert len(server.pages) in (99, 100)  # the first page with entries is new
    assert server.requested[-1] == f"DELETE {JOB}"


def test_99_empty_pages_in_a_row_are_valid(in_virtual_time: Run) -> None:
    """Any new page begins the count again."""
    server = Server()
    empty = [{"results": [], "cursor": f"c{number}"} for number in range(198)]
    server.pages = [*empty[:99], {"results": [GROUP], "cursor": "new"}, *empty[99:], {"results": []}]
    assert in_virtual_time(server.scan()) == 200

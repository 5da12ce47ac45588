"""A fast query-builder API in its own process.

    python -m benchmarks.source --flows 1000 --outcomes 5

Figures are computed from flow, outcome and bucket number, so that results can be checked. It requires a token,
returns pages with an opaque cursor, and with ``--limit`` answers requests over the limit in any second with 429.
``GET /stats`` returns statistics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

STEP = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}
OUTCOMES = ("Paid", "TransferredToQueue", "Abandoned", "SelfServiceCompleted", "CallbackScheduled")
EARLY = 10.0
"""Seconds from the first request in which requests are counted apart."""
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)


def flow_id(number: int) -> str:
    """Return a flow's id."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def count_of(flow: int, outcome: int, bucket: int) -> int:
    """Return the count of an outcome in a bucket; buckets are numbered from EPOCH."""
    return (flow * 7 + outcome * 13 + bucket % 10) % 500


@dataclass
class Arrivals:
    """Statistics of the received requests."""

    limit: float | None
    times: deque[float] = field(default_factory=deque)
    answered: int = 0
    pages: int = 0
    throttled: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0
    early: int = 0

    def admit(self) -> bool:
        """Count a request; return whether it is within the limit."""
        now = time.monotonic()
        while self.times and self.times[0] <= now - 1.0:
            self.times.popleft()
        if self.limit is not None and len(self.times) >= self.limit:
            self.throttled += 1
            return False
        self.times.append(now)
        self.peak = max(self.peak, len(self.times))
        self.first = self.first or now
        self.last = now
        self.answered += 1
        self.early += now < self.first + EARLY
        return True

    def summary(self) -> dict[str, Any]:
        """Return the statistics; ``first`` is the time of the first request, on the monotonic clock."""
        return {
            "answered": self.answered,
            "pages": self.pages,
            "throttled": self.throttled,
            "peak": self.peak,
            "early": self.early,
            "seconds": round(self.last - self.first, 3),
            "first": self.first,
            "last_at": time.time() - (time.monotonic() - self.last),
        }


class Source:
    """Flows that each report the same outcomes in every bucket."""

    def __init__(self, flows: int, outcomes: int, limit: float | None, latency: float = 0.0) -> None:
        self._heads = [f'{{"group":{{"flow-id":"{flow_id(flow)}"}},"interval":"'.encode() for flow in range(flows)]
        # ten variants per flow make consecutive days different
        self._tails = [
            [_metrics([count_of(flow, outcome, variant) for outcome in range(outcomes)]) for variant in range(10)]
            for flow in range(flows)
        ]
        self._limit = limit
        self._latency = latency
        self.arrivals: dict[str, Arrivals] = {}

    def application(self) -> web.Application:
        """Return the application with its routes."""
        app = web.Application()
        for prefix in ("", "/{org}"):
            app.router.add_post(f"{prefix}/oauth/token", self._token)
            app.router.add_post(f"{prefix}/api/v2/analytics/query-builder/query", self._query)
        app.router.add_get("/stats", self._stats)
        app.router.add_post("/reset", self._reset)
        return app

    def _of(self, request: web.Request) -> Arrivals:
        return self.arrivals.setdefault(request.match_info.get("org", ""), Arrivals(self._limit))

    async def _token(self, request: web.Request) -> web.Response:
        if not self._of(request).admit():
            return _throttled()
        return web.json_response({"access_token": "benchmark", "token_type": "bearer", "expires_in": 86400})

    async def _query(self, request: web.Request) -> web.Response:
        arrivals = self._of(request)
        if not arrivals.admit():
            return _throttled()
        if request.headers.get("Authorization") != "Bearer benchmark":
            return web.json_response({"status": 401, "code": "bad.credentials"}, status=401)
        query = json.loads(await request.read())["queryBuilder"]
        await asyncio.sleep(self._latency)
        begin, step = datetime.fromisoformat(query["dateFrom"]), STEP[query["timeGroup"]]
        buckets = (datetime.fromisoformat(query["dateTo"]) - begin) // step
        at, size, flows = int(query.get("nextPageToken", "c0")[1:]), query["limit"], len(self._heads)
        end = min(at + size, buckets * flows)
        parts = [b'{"metrics":["flow-outcomes"],"data":[']
        for number in range(at, end):
            bucket, flow = divmod(number, flows)
            if number == at or not flow:
                start = begin + bucket * step
                interval, variant = _interval(start, start + step), ((start - EPOCH) // step) % 10
            parts += (b"," if number > at else b"", self._heads[flow], interval, self._tails[flow][variant])
        token = f'"c{end}"' if end < buckets * flows else "null"
        parts.append(f'],"nextPageToken":{token}}}'.encode())
        arrivals.pages += 1
        return web.Response(body=b"".join(parts), content_type="application/json")

    async def _stats(self, _request: web.Request) -> web.Response:
        return web.json_response({org: arrivals.summary() for org, arrivals in self.arrivals.items()})

    async def _reset(self, _request: web.Request) -> web.Response:
        self.arrivals.clear()
        return web.json_response({})


def _throttled() -> web.Response:
    return web.json_response(
        {"status": 429, "code": "too.many.requests"}, status=429, headers={"Retry-After": "1"}
    )


def _interval(start: datetime, end: datetime) -> bytes:
    return f"{start:%Y-%m-%dT%H:%M:%S.000Z}/{end:%Y-%m-%dT%H:%M:%S.000Z}".encode()


def _metrics(counts: Sequence[int]) -> bytes:
    total = sum(counts) or 1
    summary = ",".join(
        f'"{OUTCOMES[i] if i < len(OUTCOMES) else f"Outcome{i}"}":{{"count":{n},"percentOfTotal":{n / total:.4f}}}'
        for i, n in enumerate(counts)
    )
    return f'","metrics":{{"flow-outcomes":{{{summary}}}}}}}'.encode()


@dataclass
class Running:
    """The server process.

    Attributes:
        url: its base URL.
    """

    url: str

    def stats(self, org: str = "") -> dict[str, Any]:
        """Return the statistics since the last reset, of an org with its own path, or of requests without one."""
        return self.all_stats()[org]

    def all_stats(self) -> dict[str, dict[str, Any]]:
        """Return the statistics of each org."""
        with urllib.request.urlopen(f"{self.url}/stats") as answer:  # noqa: S310 - our own server on loopback
            summary: dict[str, dict[str, Any]] = json.load(answer)
        return summary

    def reset(self) -> None:
        """Reset the statistics."""
        request = urllib.request.Request(f"{self.url}/reset", method="POST")  # noqa: S310 - our own server on loopback
        with urllib.request.urlopen(request):  # noqa: S310 - our own server on loopback
            pass


@contextmanager
def running(
    *, flows: int, outcomes: int = 5, limit: float | None = None, latency: float = 0.0
) -> Iterator[Running]:
    """Run the server while the context is entered."""
    command = [sys.executable, "-m", "benchmarks.source", "--flows", str(flows), "--outcomes", str(outcomes)]
    command += ["--latency", str(latency)]
    if limit is not None:
        command += ["--limit", str(limit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - this module
        assert server.stdout is not None  # noqa: S101 - it is a pipe
        try:
            yield Running(server.stdout.readline().strip())
        finally:
            server.terminate()


async def _serve(flows: int, outcomes: int, limit: float | None, latency: float) -> None:
    runner = web.AppRunner(Source(flows, outcomes, limit, latency).application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def main() -> None:
    """Serve until the process is terminated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--outcomes", type=int, default=5)
    parser.add_argument("--limit", type=float, help="requests in any second; more are answered 429")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that a page takes")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.flows, arguments.outcomes, arguments.limit, arguments.latency))


if __name__ == "__main__":
    main()

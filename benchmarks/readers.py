"""How much readers of the page slow a backlog: ``python -m benchmarks.readers [--readers 200] [--seconds 60]``.

One org with a limit of 10 requests per second works off a backlog of ``seconds``, once without readers and once
with them, in turn for ``--rounds``. A reader is a visible page: it requests what the overview, a flow's view or
the health polls, as often, and with its ETags. Prints times and the daemon's CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import socket
import statistics
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import aiohttp
import psycopg
import yaml

from benchmarks import source
from benchmarks.idle import cpu_seconds
from benchmarks.measure import Testbed, print_line, start_testbed
from benchmarks.processes import COMPLETE, daemons, wait_until
from benchmarks.span import days_until_now

LIMIT = 10
FLOWS = 1000
PAGES_A_DAY = FLOWS // 100
VIEWS = (
    (20.0, ("/api/now", "/api/overview?org=acme")),
    (20.0, ("/api/now", "/api/overview?org=acme")),
    (30.0, ("/api/now", "/api/flow?org=acme&flow={flow}", "/api/instants?org=acme&flow={flow}")),
    (5.0, ("/api/now", "/api/strips", "/api/timeline", "/api/suggestions")),
)
"""Seconds between two polls, and what one requests; a reader has one of them."""


class Readers:
    """Requests as many pages send them, in a thread of its own.

    Attributes:
        answered: responses with 200 or 304.
        refused: all others, by path and reason.
    """

    def __init__(self, url: str, count: int) -> None:
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self._url = url
        self._count = count
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        self._loop.run_until_complete(self._read())
        self._loop.close()

    async def _read(self) -> None:
        self._stop = asyncio.Event()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:  # noqa: TID251 - the program's own server
            await self._listening(session)
            await asyncio.gather(*(self._reader(session, number) for number in range(self._count)))

    async def _listening(self, session: aiohttp.ClientSession) -> None:  # noqa: TID251 - as above
        """Wait until the daemon listens."""
        async with asyncio.timeout(60):
            while True:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{self._url}/healthz"):
                        return
                await asyncio.sleep(0.1)

    async def _reader(self, session: aiohttp.ClientSession, number: int) -> None:  # noqa: TID251 - as above
        interval, paths = VIEWS[number % len(VIEWS)]
        known: dict[str, str] = {}
        flow = f"flow-{number % FLOWS}"
        pause = random.Random(number).random() * interval  # noqa: S311 - spreads the readers
        while True:
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except TimeoutError:
                pause = interval
            else:
                return
            for path in (each.format(flow=flow) for each in paths):
                headers = {"If-None-Match": known[path]} if path in known else {}
                try:
                    async with session.get(f"{self._url}{path}", headers=headers) as response:
                        body = await response.read()
                except aiohttp.ClientError as error:
                    self.refused[f"{path.partition('?')[0]}: {error}"] += 1
                    continue
                known[path] = response.headers.get("ETag", "")
                if response.status in {200, 304}:
                    self.answered += 1
                else:
                    self.refused[f"{path.partition('?')[0]}: {response.status} {body.decode()}"] += 1

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read while the context is entered."""
        if not self._count:
            yield
            return
        self._thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


def main() -> None:
    """Measure without and with readers, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=60, help="length of the backlog")
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    taken: dict[int, list[float]] = {0: [], arguments.readers: []}
    with start_testbed() as testbed, source.running(flows=FLOWS, limit=LIMIT) as server:
        for _, readers in itertools.product(range(arguments.rounds), taken):
            server.reset()
            taken[readers].append(_measure(testbed, server, readers, arguments.seconds * LIMIT // PAGES_A_DAY))
    without, beside = (statistics.median(each) for each in taken.values())
    print_line(f"{arguments.readers} readers: {beside / without - 1:+.1%}")


def _measure(testbed: Testbed, server: source.Running, readers: int, days: int) -> float:
    dsn = testbed.database()
    config = testbed.configuration(
        dsn, {"acme": server.url}, f"{days_until_now(days)[0]:%Y-%m-%d}", requests_per_second=LIMIT
    )
    port = _serve_at(config)
    pages = Readers(f"http://127.0.0.1:{port}", readers)
    with psycopg.connect(dsn, autocommit=True) as connection, daemons(config, 1) as running, pages.reading():
        wait_until(lambda: connection.execute(COMPLETE.encode()).fetchone() == (days,))
        (pid,) = running.pids()
        cpu = cpu_seconds(pid)
    (stats,) = server.all_stats().values()
    print_line(
        f"{readers:>4} readers: {days} days in {stats['seconds']:.1f} s, {cpu:.1f} s of the daemon's CPU time,"
        f" {pages.answered} responses, {pages.refused.total()} refused"
    )
    for reason, times in pages.refused.most_common(5):
        print_line(f"  {times} times {reason}")
    return float(stats["seconds"])


def _serve_at(config: Path) -> int:
    """Give the configuration a free port; return it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    tree = yaml.safe_load(config.read_text(encoding="utf-8"))
    tree["http"]["port"] = port
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return port


if __name__ == "__main__":
    main()

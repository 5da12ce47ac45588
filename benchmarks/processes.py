"""Orgs shared by processes on one database: ``python -m benchmarks.processes [--orgs 8] [--processes 1 2 4]``.

Each org has a backlog of days, at its usual limit of ten requests a second. Told are how long all of it took,
beside the limit's own time; what processor time and memory the processes used; how often a merge found no
connection; how many orgs each came to hold; and how long the orgs of one stood still when it was killed, and when
it was stopped (SIGSTOP).
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks import source
from benchmarks.idle import cpu_seconds
from benchmarks.measure import PROGRAM, ground, told
from benchmarks.span import days_until_now

RATE = 10  # requests a second that an org may ask
PAGE = 100
POLL = 0.05
PATIENCE = 600.0
SETTLED = 15.0  # seconds in which the orgs have been shared evenly

COMPLETE = "SELECT count(*) FROM flow_outcomes.extraction_window WHERE state = 'complete'"
OWNERS = (
    "SELECT org, owner FROM flow_outcomes.org_lease WHERE owner IS NOT NULL AND expires_at > clock_timestamp()"
)


class Daemons:
    """So many of them with one configuration.

    Attributes:
        logs: what each has told, a file a process.
    """

    def __init__(self, config: Path, processes: int) -> None:
        self.logs = [config.with_name(f"{config.stem}_{number}.log") for number in range(processes)]
        self._running = []
        for log in self.logs:
            with log.open("wb") as written:
                self._running.append(subprocess.Popen([PROGRAM, "run", "--config", config], stdout=written))  # noqa: S603 - our own

    def pids(self) -> list[int]:
        """Of those that still run."""
        return [each.pid for each in self._running if each.poll() is None]

    def count(self, event: str) -> int:
        """How often all of them together told an event."""
        return sum(log.read_bytes().count(f'"event": "{event}"'.encode()) for log in self.logs)

    def end(self) -> None:
        """End them in order."""
        for each in self._running:
            each.send_signal(signal.SIGCONT)
            each.terminate()
        for each in self._running:
            each.wait()


@contextmanager
def daemons(config: Path, processes: int) -> Iterator[Daemons]:
    """So many of them while the block lasts."""
    found = Daemons(config, processes)
    try:
        yield found
    finally:
        found.end()


def until(true: Callable[[], bool]) -> float:
    """Wait for it; the seconds that it took.

    Raises:
        TimeoutError: it did not come.
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError
        time.sleep(POLL)
    return time.monotonic() - began


def high_water(pid: int) -> float:
    """The most memory that a process held, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Measure each number of processes, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orgs", type=int, default=8)
    parser.add_argument("--flows", type=int, default=200)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args()
    with ground() as place, source.running(flows=given.flows) as server:
        for processes in given.processes:
            urls = {f"org{number}": server.url for number in range(given.orgs)}
            since = f"{days_until_now(given.days)[0]:%Y-%m-%d}"
            dsn = place.database()
            config = place.configuration(dsn, urls, since, requests_per_second=RATE)
            server.reset()
            with psycopg.connect(dsn, autocommit=True) as looking, daemons(config, processes) as running:
                _backlog(looking, running, server, processes, given)
                if processes > 1:
                    _takeovers(looking, running)


def _backlog(
    looking: psycopg.Connection[tuple[object, ...]],
    running: Daemons,
    server: source.Running,
    processes: int,
    given: argparse.Namespace,
) -> None:
    until(lambda: running.count("daemon_started") == processes)
    began = [high_water(pid) for pid in running.pids()]
    windows = given.orgs * given.days
    took = until(lambda: looking.execute(COMPLETE.encode()).fetchone() == (windows,))
    pages = server.stats()["pages"]
    least = pages / given.orgs / RATE
    cpu = [cpu_seconds(pid) for pid in running.pids()]
    peak = [high_water(pid) for pid in running.pids()]
    figures = windows * given.flows * len(source.OUTCOMES)
    told(f"{given.orgs} orgs, {processes} processes: {figures:,} figures on {pages:,} pages in {took:.1f} s")
    told(f"  at the limit it takes {least:.1f} s; {sum(cpu):.1f} s of processor time")
    told(f"  memory of the largest: {max(began):.0f} MB at the start, {max(peak):.0f} MB at its peak")
    told(f"  no connection was to be had {running.count('database_unavailable')} times")
    time.sleep(SETTLED)
    held = [owner for _, owner in looking.execute(OWNERS.encode()).fetchall()]
    told(f"  orgs that each holds: {sorted(Counter(held).values())}")


def _takeovers(looking: psycopg.Connection[tuple[object, ...]], running: Daemons) -> None:
    for how, name in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "stopped")):
        owners = dict(looking.execute(OWNERS.encode()).fetchall())
        victims = {
            pid: {org for org, owner in owners.items() if f":{pid}:" in str(owner)} for pid in running.pids()
        }
        victim = max(victims, key=lambda pid: len(victims[pid]))
        if not victims[victim] or len(victims) == 1:
            return
        os.kill(victim, how)

        def over(orgs: set[object] = victims[victim], owner: str = f":{victim}:") -> bool:
            now = dict(looking.execute(OWNERS.encode()).fetchall())
            return all(org in now and owner not in str(now[org]) for org in orgs)

        told(f"  {name}: its {len(victims[victim])} orgs have another process after {until(over):.1f} s")


if __name__ == "__main__":
    main()

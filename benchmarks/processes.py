"""Orgs shared by processes on one database: ``python -m benchmarks.processes [--orgs 8] [--processes 1 2 4]``.

Each org has a backlog of days and the default limit of ten requests per second. Prints the time for the backlog
and the minimum at the limit; CPU time and memory of the processes; how often no database connection was available;
how many orgs each process holds; and how long the orgs of a killed and of a stopped (SIGSTOP) process had no
owner.
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
from benchmarks.measure import PROGRAM, print_line, start_testbed
from benchmarks.span import days_until_now

RATE = 10  # requests per second of an org
PAGE = 100
POLL = 0.05
TIMEOUT = 600.0
SETTLED = 15.0  # seconds after which the orgs are evenly distributed

COMPLETE = "SELECT count(*) FROM flow_outcomes.extraction_window WHERE state = 'complete'"
OWNERS = (
    "SELECT org, owner FROM flow_outcomes.org_lease WHERE owner IS NOT NULL AND expires_at > clock_timestamp()"
)


class Daemons:
    """Several daemons with one configuration.

    Attributes:
        logs: the log file of each daemon.
    """

    def __init__(self, config: Path, processes: int) -> None:
        self.logs = [config.with_name(f"{config.stem}_{number}.log") for number in range(processes)]
        self._running = []
        for log in self.logs:
            with log.open("wb") as written:
                self._running.append(subprocess.Popen([PROGRAM, "run", "--config", config], stdout=written))  # noqa: S603 - our own

    def pids(self) -> list[int]:
        """Return the process ids of those still running."""
        return [each.pid for each in self._running if each.poll() is None]

    def count(self, event: str) -> int:
        """Return how often an event was logged by all of them together."""
        return sum(log.read_bytes().count(f'"event": "{event}"'.encode()) for log in self.logs)

    def end(self) -> None:
        """Stop all daemons."""
        for each in self._running:
            each.send_signal(signal.SIGCONT)
            each.terminate()
        for each in self._running:
            each.wait()


@contextmanager
def daemons(config: Path, processes: int) -> Iterator[Daemons]:
    """Run daemons while the context is entered."""
    running = Daemons(config, processes)
    try:
        yield running
    finally:
        running.end()


def wait_until(true: Callable[[], bool]) -> float:
    """Wait until ``true`` returns True; return the seconds it took.

    Raises:
        TimeoutError: it did not within ``TIMEOUT``.
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > TIMEOUT:
            raise TimeoutError
        time.sleep(POLL)
    return time.monotonic() - began


def high_water(pid: int) -> float:
    """Return the peak memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Measure each number of processes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orgs", type=int, default=8)
    parser.add_argument("--flows", type=int, default=200)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    with start_testbed() as testbed, source.running(flows=arguments.flows) as server:
        for processes in arguments.processes:
            urls = {f"org{number}": server.url for number in range(arguments.orgs)}
            since = f"{days_until_now(arguments.days)[0]:%Y-%m-%d}"
            dsn = testbed.database()
            config = testbed.configuration(dsn, urls, since, requests_per_second=RATE)
            server.reset()
            with psycopg.connect(dsn, autocommit=True) as connection, daemons(config, processes) as running:
                _backlog(connection, running, server, processes, arguments)
                if processes > 1:
                    _takeovers(connection, running)


def _backlog(
    connection: psycopg.Connection[tuple[object, ...]],
    running: Daemons,
    server: source.Running,
    processes: int,
    arguments: argparse.Namespace,
) -> None:
    wait_until(lambda: running.count("daemon_started") == processes)
    began = [high_water(pid) for pid in running.pids()]
    windows = arguments.orgs * arguments.days
    seconds = wait_until(lambda: connection.execute(COMPLETE.encode()).fetchone() == (windows,))
    pages = server.stats()["pages"]
    minimum = pages / arguments.orgs / RATE
    cpu = [cpu_seconds(pid) for pid in running.pids()]
    peak = [high_water(pid) for pid in running.pids()]
    figures = windows * arguments.flows * len(source.OUTCOMES)
    print_line(
        f"{arguments.orgs} orgs, {processes} processes: {figures:,} figures on {pages:,} pages in {seconds:.1f} s"
    )
    print_line(f"  minimum at the limit: {minimum:.1f} s; CPU time: {sum(cpu):.1f} s")
    print_line(
        f"  memory of the largest process: {max(began):.0f} MB at the start, {max(peak):.0f} MB at its peak"
    )
    print_line(f"  no connection was available {running.count('database_unavailable')} times")
    time.sleep(SETTLED)
    owners = [owner for _, owner in connection.execute(OWNERS.encode()).fetchall()]
    print_line(f"  orgs per process: {sorted(Counter(owners).values())}")


def _takeovers(connection: psycopg.Connection[tuple[object, ...]], running: Daemons) -> None:
    for how, name in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "stopped")):
        owners = dict(connection.execute(OWNERS.encode()).fetchall())
        victims = {
            pid: {org for org, owner in owners.items() if f":{pid}:" in str(owner)} for pid in running.pids()
        }
        victim = max(victims, key=lambda pid: len(victims[pid]))
        if not victims[victim] or len(victims) == 1:
            return
        os.kill(victim, how)

        def over(orgs: set[object] = victims[victim], owner: str = f":{victim}:") -> bool:
            now = dict(connection.execute(OWNERS.encode()).fetchall())
            return all(org in now and owner not in str(now[org]) for org in orgs)

        print_line(f"  {name}: its {len(victims[victim])} orgs had no owner for {wait_until(over):.1f} s")


if __name__ == "__main__":
    main()

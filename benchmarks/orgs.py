"""Many orgs in one process, and eight orgs over one, two and four: ``python -m benchmarks.orgs``.

Each org has 10 requests a second of its own, and a backlog of so many seconds. Told is the share of the limits
that was in use from each org's first request to its last, what was answered with 429, and what each process cost.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from benchmarks import source
from benchmarks.idle import cpu_seconds, resident
from benchmarks.measure import PROGRAM, Ground, ground, told
from benchmarks.span import days_until_now

LIMIT = 10
FLOWS = 200
PAGES_A_DAY = FLOWS // 100


def main() -> None:
    """Measure each, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="how long each org's backlog is")
    parser.add_argument("--orgs", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    with ground() as place, source.running(flows=FLOWS, limit=LIMIT) as server:
        for orgs in arguments.orgs:
            _measure(place, server, orgs, 1, arguments.seconds)
        for processes in arguments.processes:
            _measure(place, server, 8, processes, arguments.seconds)


def _measure(place: Ground, server: source.Running, orgs: int, processes: int, seconds: int) -> None:
    days = seconds * LIMIT // PAGES_A_DAY
    dsn = place.database()
    urls = {f"org{number}": f"{server.url}/org{number}" for number in range(orgs)}
    config = place.configuration(dsn, urls, f"{days_until_now(days)[0]:%Y-%m-%d}", requests_per_second=LIMIT)
    server.reset()
    running = [_start(config) for _ in range(processes)]
    try:
        complete = _wait(dsn, orgs * days, seconds * 5 + 60)
        cost = [(cpu_seconds(each.pid), resident(each.pid) / 2**20) for each in running]
        with psycopg.connect(dsn) as connection:
            rows = connection.execute(
                "SELECT count(*) FROM flow_outcomes.org_lease GROUP BY owner ORDER BY 1"
            ).fetchall()
    finally:
        for each in running:
            each.terminate()
        for each in running:
            each.wait()
    _tell(server, orgs, days, complete, cost, [row[0] for row in rows])


def _start(config: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the program
        [str(PROGRAM), "run", "--config", str(config)], stdout=subprocess.DEVNULL, env=os.environ
    )


def _wait(dsn: str, windows: int, within: float) -> int:
    until = time.monotonic() + within
    complete = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() < until and complete < windows:
            time.sleep(0.5)
            row = connection.execute(
                "SELECT count(*) FROM flow_outcomes.extraction_window WHERE state = 'complete'"
            ).fetchone()
            complete = row[0] if row else 0
    return complete


def _tell(
    server: source.Running,
    orgs: int,
    days: int,
    complete: int,
    cost: Sequence[tuple[float, float]],
    held: Sequence[int],
) -> None:
    stats = list(server.all_stats().values())
    used = sum(each["answered"] - 1 for each in stats) / sum(each["seconds"] * LIMIT for each in stats)
    throttled = sum(each["throttled"] for each in stats)
    told(
        f"{orgs:>3} orgs, {len(cost)} processes: {complete} of {orgs * days} windows, {used:.1%} of the limits,"
        f" {throttled} answered 429; orgs held {', '.join(map(str, held))};"
        f" {', '.join(f'{cpu:.1f} s of CPU and {peak:.0f} MB' for cpu, peak in cost)}"
    )


if __name__ == "__main__":
    sys.exit(main())

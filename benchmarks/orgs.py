"""One, ten and a hundred orgs in one process: ``python -m benchmarks.orgs [--orgs 1 10 100] [--seconds 20]``.

Each org has 10 requests a second of its own, and a backlog of so many seconds. Told is the share of the limits
that was in use, from each org's first request to its last, what was answered with 429, and what the process cost.
"""

from __future__ import annotations

import argparse

import psycopg

from benchmarks import source
from benchmarks.idle import cpu_seconds
from benchmarks.measure import Ground, ground, told
from benchmarks.processes import COMPLETE, daemons, high_water, until
from benchmarks.span import days_until_now

LIMIT = 10
FLOWS = 200
PAGES_A_DAY = FLOWS // 100


def main() -> None:
    """Measure each number of orgs, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="how long each org's backlog is")
    parser.add_argument("--orgs", type=int, nargs="+", default=[1, 10, 100])
    arguments = parser.parse_args()
    with ground() as place, source.running(flows=FLOWS, limit=LIMIT) as server:
        for orgs in arguments.orgs:
            server.reset()
            _measure(place, server, orgs, arguments.seconds * LIMIT // PAGES_A_DAY)


def _measure(place: Ground, server: source.Running, orgs: int, days: int) -> None:
    dsn = place.database()
    urls = {f"org{number}": f"{server.url}/org{number}" for number in range(orgs)}
    config = place.configuration(dsn, urls, f"{days_until_now(days)[0]:%Y-%m-%d}", requests_per_second=LIMIT)
    with psycopg.connect(dsn, autocommit=True) as looking, daemons(config, 1) as running:
        until(lambda: looking.execute(COMPLETE.encode()).fetchone() == (orgs * days,))
        (pid,) = running.pids()
        cost = f"{cpu_seconds(pid):.1f} s of processor time, {high_water(pid):.0f} MB at the peak"
    stats = list(server.all_stats().values())
    used = sum(each["answered"] - 1 for each in stats) / sum(each["seconds"] * LIMIT for each in stats)
    throttled, longest = sum(each["throttled"] for each in stats), max(each["seconds"] for each in stats)
    told(
        f"{orgs:>3} orgs: {orgs * days} windows in {longest:.0f} s, {used:.1%} of the limits in use,"
        f" {throttled} answered 429; {cost}"
    )


if __name__ == "__main__":
    main()

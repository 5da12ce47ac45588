"""One, ten and a hundred orgs in one process: ``python -m benchmarks.orgs [--orgs 1 10 100] [--seconds 20]``.

Each org has a limit of 10 requests per second and a backlog of ``seconds``. Prints the used share of the limits,
from each org's first request to its last, the number of 429 responses, and the cost of the process.
"""

from __future__ import annotations

import argparse

import psycopg

from benchmarks import source
from benchmarks.idle import cpu_seconds
from benchmarks.measure import Testbed, print_line, start_testbed
from benchmarks.processes import COMPLETE, daemons, high_water, wait_until
from benchmarks.span import days_until_now

LIMIT = 10
FLOWS = 200
PAGES_A_DAY = FLOWS // 100


def main() -> None:
    """Measure each number of orgs and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="length of each org's backlog")
    parser.add_argument("--orgs", type=int, nargs="+", default=[1, 10, 100])
    arguments = parser.parse_args()
    with start_testbed() as testbed, source.running(flows=FLOWS, limit=LIMIT) as server:
        for orgs in arguments.orgs:
            server.reset()
            _measure(testbed, server, orgs, arguments.seconds * LIMIT // PAGES_A_DAY)


def _measure(testbed: Testbed, server: source.Running, orgs: int, days: int) -> None:
    dsn = testbed.database()
    urls = {f"org{number}": f"{server.url}/org{number}" for number in range(orgs)}
    config = testbed.configuration(dsn, urls, f"{days_until_now(days)[0]:%Y-%m-%d}", requests_per_second=LIMIT)
    with psycopg.connect(dsn, autocommit=True) as connection, daemons(config, 1) as running:
        wait_until(lambda: connection.execute(COMPLETE.encode()).fetchone() == (orgs * days,))
        (pid,) = running.pids()
        cost = f"{cpu_seconds(pid):.1f} s of CPU time, {high_water(pid):.0f} MB at the peak"
    stats = list(server.all_stats().values())
    used = sum(each["answered"] - 1 for each in stats) / sum(each["seconds"] * LIMIT for each in stats)
    throttled, longest = sum(each["throttled"] for each in stats), max(each["seconds"] for each in stats)
    print_line(
        f"{orgs:>3} orgs: {orgs * days} windows in {longest:.0f} s, {used:.1%} of the limits used,"
        f" {throttled} answered 429; {cost}"
    )


if __name__ == "__main__":
    main()

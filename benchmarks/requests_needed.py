"""Requests for a backlog, compared with the minimum: ``python -m benchmarks.requests_needed``.

The minimum is the number of entries divided by the page size. Measured for small and large orgs: a catch-up of a
year, and the lookback of the next day. Token requests are not counted.
"""

from __future__ import annotations

from math import ceil

from benchmarks import source
from benchmarks.end_to_end import FASTEST
from benchmarks.measure import PROGRAM, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

DAYS = 365
LOOKBACK = 4  # windows: the newest due one and three days before it
PAGE = 100


def main() -> None:
    """Measure each org and print it."""
    with start_testbed(durable=False) as testbed:
        for flows in (3, 6, 40, 250, 1000):
            with source.running(flows=flows, outcomes=2) as server:
                config = testbed.configuration(
                    testbed.database(),
                    server.url,
                    f"{days_until_now(DAYS)[0]:%Y-%m-%d}",
                    requests_per_second=FASTEST,
                )
                for what, days in (("a year's catch-up", DAYS), ("the daily lookback", LOOKBACK)):
                    server.reset()
                    measure_command([PROGRAM, "run", "--once", "--config", config])
                    pages, minimum = server.stats()["pages"], ceil(flows * days / PAGE)
                    print_line(
                        f"{flows:>5} flows, {what}: {pages} requests, minimum {minimum}, {pages / minimum:.3f}x"
                    )


if __name__ == "__main__":
    main()

"""Requests for a backlog, against the least possible: ``python -m benchmarks.requests_needed``.

The least is the entries over the page size. Small orgs and large ones: a year's catch-up, and the lookback of the
day after. The token's request is not counted.
"""

from __future__ import annotations

from math import ceil

from benchmarks import source
from benchmarks.end_to_end import FASTEST
from benchmarks.measure import PROGRAM, ground, measured, told
from benchmarks.span import days_until_now

DAYS = 365
LOOKBACK = 4  # windows: the newest due one and three days before it
PAGE = 100


def main() -> None:
    """Measure each org, and print it."""
    with ground(durable=False) as place:
        for flows in (3, 6, 40, 250, 1000):
            with source.running(flows=flows, outcomes=2) as server:
                config = place.configuration(
                    place.database(),
                    server.url,
                    f"{days_until_now(DAYS)[0]:%Y-%m-%d}",
                    requests_per_second=FASTEST,
                )
                for what, days in (("a year's catch-up", DAYS), ("the daily lookback", LOOKBACK)):
                    server.reset()
                    measured([PROGRAM, "run", "--once", "--config", config])
                    pages, least = server.stats()["pages"], ceil(flows * days / PAGE)
                    told(f"{flows:>5} flows, {what}: {pages} requests, {least} at least, {pages / least:.3f}x")


if __name__ == "__main__":
    main()

"""At an org's limit: how much of it is used, and how soon the last page is visible.

    python -m benchmarks.limit [--pages 500] [--limit 10] [--concurrency 1 4]
    python -m benchmarks.limit --window week day --latency 0.15 --concurrency 4
    python -m benchmarks.limit --pages 15000 --limit 50 --concurrency 4 --outcomes 1 --load 4

The server answers requests over its limit in any second with 429. ``visible after`` is the time from the arrival
of the last request to the log event that its windows are stored; it includes sending, reading and merging the
page. With ``--window`` the backlog is read by the hour, from windows of that length; ``first ten seconds`` shows
what it waits for while nothing is known of its size. ``--load`` runs as many processes that compute meanwhile.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from math import ceil

from benchmarks import source
from benchmarks.measure import PROGRAM, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

FLOWS = 2000  # of five outcomes: 10,000 rows a day
HOURLY_FLOWS = 60  # 14.4 pages a day, 100.8 pages a week


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Run so many processes that compute while the context is entered."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def main() -> None:
    """Measure each concurrency and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--limit", type=float, default=10)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that a page takes")
    parser.add_argument("--window", nargs="+", choices=["day", "week"], default=[], help="hourly, of this length")
    parser.add_argument("--outcomes", type=int, default=5, help="of each flow")
    parser.add_argument("--load", type=int, default=0, help="processes that compute meanwhile")
    arguments = parser.parse_args()
    flows = HOURLY_FLOWS if arguments.window else FLOWS
    days = max(1, ceil(arguments.pages * 100 / flows / (24 if arguments.window else 1)))
    with (
        start_testbed() as testbed,
        source.running(
            flows=flows, outcomes=arguments.outcomes, limit=arguments.limit, latency=arguments.latency
        ) as server,
        load(arguments.load),
    ):
        for window in arguments.window or ["day"]:
            job = {"window": window, "granularity": "hourly"} if arguments.window else {}
            for concurrency in arguments.concurrency:
                server.reset()
                config = testbed.configuration(
                    testbed.database(),
                    server.url,
                    f"{days_until_now(days)[0]:%Y-%m-%d}",
                    job=job,
                    requests_per_second=arguments.limit,
                    concurrency=concurrency,
                )
                run = measure_command([PROGRAM, "run", "--once", "--config", config])
                events = [json.loads(line) for line in run.out.splitlines()]
                ended = max(event["timestamp"] for event in events if event["event"] == "window_complete")
                stats = server.stats()
                visible = datetime.fromisoformat(ended).timestamp() - stats["last_at"]
                permitted = stats["seconds"] * arguments.limit
                margins = [event["margin"] for event in events if event["event"] == "rate_limit_margin_changed"]
                early = stats["early"] / source.EARLY / arguments.limit
                print_line(
                    f"{window}, concurrency {concurrency}: {stats['pages']} pages in {stats['seconds']:.1f} s,"
                    f" {(stats['answered'] - 1) / permitted:.1%} of the limit, {early:.0%} in the first ten s,"
                    f" {stats['throttled']} answered 429, margins {margins}, at most {stats['peak']} per second;"
                    f" visible after {visible:.2f} s"
                )


if __name__ == "__main__":
    main()

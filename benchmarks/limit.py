"""At an org's limit: how much of it is used, and how soon the last page is visible.

    python -m benchmarks.limit [--pages 500] [--limit 10] [--concurrency 1 4]

The server answers requests over its limit in any second with 429. ``visible after`` is the time from the arrival
of the last request to the log event that its windows are stored; it includes sending, reading and merging the
page.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime

from benchmarks import source
from benchmarks.measure import PROGRAM, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

FLOWS = 2000  # of five outcomes: 10,000 rows a day


def main() -> None:
    """Measure each concurrency and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--limit", type=float, default=10)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    arguments = parser.parse_args()
    days = max(1, arguments.pages * 100 // FLOWS)
    with start_testbed() as testbed, source.running(flows=FLOWS, limit=arguments.limit) as server:
        for concurrency in arguments.concurrency:
            server.reset()
            config = testbed.configuration(
                testbed.database(),
                server.url,
                f"{days_until_now(days)[0]:%Y-%m-%d}",
                requests_per_second=arguments.limit,
                concurrency=concurrency,
            )
            run = measure_command([PROGRAM, "run", "--once", "--config", config])
            events = [json.loads(line) for line in run.out.splitlines()]
            ended = max(event["timestamp"] for event in events if event["event"] == "window_complete")
            stats = server.stats()
            visible = datetime.fromisoformat(ended).timestamp() - stats["last_at"]
            permitted = stats["seconds"] * arguments.limit
            print_line(
                f"concurrency {concurrency}: {stats['pages']} pages in {stats['seconds']:.1f} s,"
                f" {(stats['answered'] - 1) / permitted:.1%} of the limit, {stats['throttled']} answered 429,"
                f" at most {stats['peak']} per second; visible after {visible:.2f} s"
            )


if __name__ == "__main__":
    main()

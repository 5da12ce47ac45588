"""Peak memory for queries of any size: ``python -m benchmarks.memory [--rows 10000 500000 5000000]``.

Each size is one ad hoc span, which is one query, into an empty database.
"""

from __future__ import annotations

import argparse

from benchmarks import source
from benchmarks.end_to_end import FASTEST
from benchmarks.measure import PROGRAM, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

DAYS = 50


def main() -> None:
    """Measure each size and print the ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 500_000, 5_000_000])
    begin, end = days_until_now(DAYS)
    first = 0.0
    with start_testbed(durable=False) as testbed:
        for rows in parser.parse_args().rows:
            flows = max(1, rows // (DAYS * 5))
            with source.running(flows=flows) as server:
                config = testbed.configuration(
                    testbed.database(), server.url, f"{end:%Y-%m-%d}", requests_per_second=FASTEST
                )
                run = measure_command(
                    [
                        *(PROGRAM, "backfill", "--config", config, "--org", "acme", "--granularity", "daily"),
                        *("--from", f"{begin:%Y-%m-%d}", "--to", f"{end:%Y-%m-%d}"),
                    ]
                )
            first = first or run.peak
            print_line(
                f"{flows * DAYS * 5:>10,} rows in one query: {run.peak:.0f} MB at the peak,"
                f" {run.peak / first:.2f}x, {run.wall:.1f} s"
            )


if __name__ == "__main__":
    main()

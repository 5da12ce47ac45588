"""The cost of a day's window and of typical queries as the tables grow.

    python -m benchmarks.growth [--stored 0 20000000] [--flows 1000] [--windows 9]

An org of ``flows`` flows with five outcomes each starts with ``stored`` daily figures; then days are extracted one
by one, each by its own process. ``window`` is the time in the log, from the first page to visible figures; reading
the pages takes equally long in all cases. The lines below it are the queries of the page and of a report.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import datetime, timedelta

import psycopg

from benchmarks import source
from benchmarks.end_to_end import FASTEST
from benchmarks.generated_org import generate_org
from benchmarks.measure import PROGRAM, Testbed, measure_command, print_line, start_testbed
from benchmarks.span import days_until_now

OUTCOMES = len(source.OUTCOMES)
DAY = timedelta(days=1)
QUERIES = {
    "a flow's month": "SELECT * FROM {relation} WHERE org = 'acme' AND granularity = 'daily'"
    " AND flow_id = %(flow)s AND bucket_start >= %(at)s - interval '31 days' AND bucket_start < %(at)s",
    "a week of all flows": "SELECT outcome_name, sum(outcome_count) FROM {relation} WHERE org = 'acme'"
    " AND granularity = 'daily' AND bucket_start >= %(at)s - interval '7 days' AND bucket_start < %(at)s"
    " GROUP BY 1",
}
RELATIONS = {
    "now": "flow_outcomes.flow_outcome",
    "as of": "flow_outcomes.flow_outcome_as_of(now() - interval '1 minute')",
}


def main() -> None:
    """Measure each size and print the ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 20_000_000])
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=9)
    arguments = parser.parse_args()
    first = 0.0
    with start_testbed(durable=False) as testbed, source.running(flows=arguments.flows) as server:
        for stored in arguments.stored:
            window = _measure(testbed, server.url, stored, arguments.flows, arguments.windows, first)
            first = first or window


def _measure(testbed: Testbed, url: str, stored: int, flows: int, windows: int, first: float) -> float:
    dsn = testbed.database()
    begin, _ = days_until_now(windows)
    config = testbed.configuration(dsn, url, f"{begin + windows * DAY:%Y-%m-%d}", requests_per_second=FASTEST)
    days = stored // (flows * OUTCOMES)
    if days:
        generate_org(
            dsn,
            begin - days * DAY,
            begin,
            flows=flows,
            outcomes=OUTCOMES,
            flow="lpad(to_hex(f), 8, '0') || '-0000-4000-8000-000000000000'",
            outcome=f"(ARRAY{list(source.OUTCOMES)})[o]",
            first_flow=0,
        )
    times = [_window(config, begin + number * DAY) for number in range(windows)]
    window = statistics.median(times)
    print_line(f"{days * flows * OUTCOMES:>11,} stored: window {window:.3f} s, {window / (first or window):.2f}x")
    with psycopg.connect(dsn) as connection:
        for (query, statement), (when, relation) in (
            (query, when) for query in QUERIES.items() for when in RELATIONS.items()
        ):
            request = statement.format(relation=relation)
            times = [
                _query_time(connection, request, begin + windows * DAY, source.flow_id(flows // 2))
                for _ in range(5)
            ]
            print_line(f"{'':>19} {query}, {when}: {statistics.median(times) * 1000:.0f} ms")
    return window


def _window(config: object, day: datetime) -> float:
    run = measure_command(
        [
            *(str(PROGRAM), "backfill", "--config", str(config), "--org", "acme", "--granularity", "daily"),
            *("--from", f"{day:%Y-%m-%d}", "--to", f"{day + DAY:%Y-%m-%d}"),
        ]
    )
    events = [json.loads(line) for line in run.out.splitlines() if line.startswith("{")]
    seconds: float = next(event["seconds"] for event in events if event["event"] == "window_complete")
    return seconds


def _query_time(connection: psycopg.Connection, statement: str, at: datetime, flow: str) -> float:
    began = time.monotonic()
    connection.execute(statement.encode(), {"at": at, "flow": flow}).fetchall()
    return time.monotonic() - began


if __name__ == "__main__":
    main()

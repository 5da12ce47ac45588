"""What a day's window and the usual questions cost as the tables grow.

    python -m benchmarks.growth [--stored 0 20000000] [--flows 1000] [--windows 9]

An org of ``flows`` flows, five outcomes each, has so many daily figures behind it; then one day after the other is
extracted, each as a process of its own. ``window`` is what the log says of it: from the first page to the figures
being visible, of which the pages are the same for all. Below it, the questions that the page and a report ask.
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
from benchmarks.measure import PROGRAM, Ground, ground, measured, told
from benchmarks.planted import plant
from benchmarks.span import days_until_now

OUTCOMES = len(source.OUTCOMES)
DAY = timedelta(days=1)
QUESTIONS = {
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
    """Measure each size, and print the ratio to the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, nargs="+", default=[0, 20_000_000])
    parser.add_argument("--flows", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=9)
    arguments = parser.parse_args()
    first = 0.0
    with ground(durable=False) as place, source.running(flows=arguments.flows) as server:
        for stored in arguments.stored:
            window = _measure(place, server.url, stored, arguments.flows, arguments.windows, first)
            first = first or window


def _measure(place: Ground, url: str, stored: int, flows: int, windows: int, first: float) -> float:
    dsn = place.database()
    begin, _ = days_until_now(windows)
    config = place.configuration(dsn, url, f"{begin + windows * DAY:%Y-%m-%d}", requests_per_second=FASTEST)
    days = stored // (flows * OUTCOMES)
    if days:
        plant(
            dsn,
            begin - days * DAY,
            begin,
            flows=flows,
            outcomes=OUTCOMES,
            flow="lpad(to_hex(f), 8, '0') || '-0000-4000-8000-000000000000'",
            outcome=f"(ARRAY{list(source.OUTCOMES)})[o]",
            first_flow=0,
        )
    took = [_window(config, begin + number * DAY) for number in range(windows)]
    window = statistics.median(took)
    told(f"{days * flows * OUTCOMES:>11,} stored: window {window:.3f} s, {window / (first or window):.2f}x")
    with psycopg.connect(dsn) as connection:
        for (question, statement), (when, relation) in (
            (question, when) for question in QUESTIONS.items() for when in RELATIONS.items()
        ):
            asked = statement.format(relation=relation)
            took = [
                _answer(connection, asked, begin + windows * DAY, source.flow_id(flows // 2)) for _ in range(5)
            ]
            told(f"{'':>19} {question}, {when}: {statistics.median(took) * 1000:.0f} ms")
    return window


def _window(config: object, day: datetime) -> float:
    run = measured(
        [
            *(str(PROGRAM), "backfill", "--config", str(config), "--org", "acme", "--granularity", "daily"),
            *("--from", f"{day:%Y-%m-%d}", "--to", f"{day + DAY:%Y-%m-%d}"),
        ]
    )
    events = [json.loads(line) for line in run.out.splitlines() if line.startswith("{")]
    seconds: float = next(event["seconds"] for event in events if event["event"] == "window_complete")
    return seconds


def _answer(connection: psycopg.Connection, statement: str, at: datetime, flow: str) -> float:
    began = time.monotonic()
    connection.execute(statement.encode(), {"at": at, "flow": flow}).fetchall()
    return time.monotonic() - began


if __name__ == "__main__":
    main()

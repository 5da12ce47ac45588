"""Bytes per figure: sizes of tables and indexes with generated rows in an embedded PostgreSQL.

    python -m benchmarks.storage --figures 1000000 --restated 0.05

Figures are daily, of one org, with ten outcomes per flow. The history has the restated figures.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg

from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate

DAYS = 730
NAMES = 10

OUTCOMES = """
    INSERT INTO flow_outcomes.series (org, flow_id, source_key, reported_name, outcome_name, revision)
    SELECT 'acme', gen_random_uuid_of(flow), name, name, name, 1
    FROM generate_series(1, %(flows)s) AS flow,
         LATERAL (SELECT 'Outcome number ' || i AS name FROM generate_series(1, %(names)s) AS i) named
"""
FLOW_ID = """
    CREATE FUNCTION pg_temp.gen_random_uuid_of(integer) RETURNS text LANGUAGE sql IMMUTABLE
    AS $$ SELECT md5($1::text)::uuid::text $$
"""
FIGURES = """
    INSERT INTO flow_outcomes.figure
    SELECT 'acme', 'daily', o.series_no, day, day + interval '1 day', 'reported', 'outcomes',
           (random() * 1000)::bigint, random(), NULL, NULL, day + interval '26 hours', 1
    FROM generate_series(timestamptz '2023-01-01', timestamptz '2023-01-01' + (%(days)s - 1) * interval '1 day',
                         interval '1 day') AS day,
         flow_outcomes.series o
"""
HISTORY = """
    INSERT INTO flow_outcomes.figure_history
    SELECT org, granularity, series_no, bucket_start, bucket_end, state, measure, outcome_count,
           outcome_percentage, success_count, failure_count, extraction_timestamp, revision, 2
    FROM flow_outcomes.figure WHERE random() < %(restated)s
"""
RESTATED = """
    INSERT INTO flow_outcomes.restated
    SELECT f.org, 2, f.granularity, o.flow_id, f.bucket_start, o.outcome_name, f.outcome_count, f.outcome_count + 1
    FROM flow_outcomes.figure_history f JOIN flow_outcomes.series o USING (org, series_no)
"""
SIZES = """
    SELECT coalesce(parent.relname, c.relname), sum(pg_table_size(c.oid))::bigint,
           sum(pg_indexes_size(c.oid))::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'flow_outcomes'
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE c.relkind = 'r' GROUP BY 1 HAVING sum(pg_table_size(c.oid)) > 100000 ORDER BY 2 DESC
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the rows and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=int, default=1_000_000)
    parser.add_argument("--restated", type=float, default=0.05, help="share of figures that are restated once")
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-storage-"))
    folder.chmod(0o755)
    try:
        with Embedded(folder / "postgresql", durable=False) as dsn:
            migrate(dsn)
            _measure(dsn, max(1, arguments.figures // (DAYS * NAMES)), arguments.restated)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(dsn: str, flows: int, restated: float) -> None:
    parameters = {"flows": flows, "names": NAMES, "days": DAYS, "restated": restated}
    began = time.monotonic()
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute("SELECT flow_outcomes.ensure_partitions('2023-01-01', '2025-01-01')")
        connection.execute(FLOW_ID)
        connection.execute(
            OUTCOMES.replace("gen_random_uuid_of", "pg_temp.gen_random_uuid_of").encode(), parameters
        )
        for statement in (FIGURES, HISTORY, RESTATED):
            connection.execute(statement.encode(), parameters)
        connection.execute("VACUUM ANALYZE")
        figures = flows * NAMES * DAYS
        sys.stdout.write(
            f"{figures:,} figures, {restated:.0%} of them restated once, in {time.monotonic() - began:.0f} s\n"
        )
        sys.stdout.write(
            f"{'table':<16}{'rows':>12}{'MB':>8}{'indexes MB':>12}{'bytes per row':>15}{'with indexes':>14}\n"
        )
        for table, heap, indexes in connection.execute(SIZES.encode()).fetchall():
            row = connection.execute(f"SELECT count(*) FROM flow_outcomes.{table}".encode()).fetchone()  # noqa: S608 - a name off the catalog
            rows = row[0] if row else 0
            sys.stdout.write(
                f"{table:<16}{rows:>12,}{heap / 1e6:>8.0f}{indexes / 1e6:>12.0f}"
                f"{heap / rows:>15.0f}{(heap + indexes) / rows:>14.0f}\n"
            )


if __name__ == "__main__":
    main()

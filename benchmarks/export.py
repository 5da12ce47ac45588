"""Time, peak memory and size of an export: ``python -m benchmarks.export [--figures 10000000]``.

The figures are those of ``benchmarks.storage``, in 24 months. With executions and milestones, a tenth as many,
restatements and coverage every table has rows. The first export writes all of them into a folder, the next
one nothing, the third one month, of which one figure was restated. Then the first year is pruned.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import psycopg
import yaml

from benchmarks import storage
from benchmarks.measure import PROGRAM, measure_command, print_line
from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate

ORG = """
    INSERT INTO flow_outcomes.org (org, epoch, revision) VALUES ('acme', 1, %(revision)s)
    ON CONFLICT (org) DO UPDATE SET revision = EXCLUDED.revision
"""
REVISION = "INSERT INTO flow_outcomes.revision (org, revision, stamped_at) VALUES ('acme', %(revision)s, now())"
MEASURES = """
    WITH added AS (
        INSERT INTO flow_outcomes.series
            (org, flow_id, source_key, reported_name, outcome_name, revision, measure)
        SELECT DISTINCT 'acme', s.flow_id, m.source_key, m.source_key, m.source_key, 1, m.measure
        FROM flow_outcomes.series s,
             (VALUES ('nFlow', 'executions'::flow_outcomes.measure), ('Reached', 'milestones'))
             AS m (source_key, measure)
        RETURNING series_no, measure
    )
    INSERT INTO flow_outcomes.figure
        (org, granularity, series_no, bucket_start, bucket_end, state, measure, outcome_count, duration_count,
         duration_sum_ms, duration_min_ms, duration_max_ms, extraction_timestamp, revision)
    SELECT 'acme', 'daily', added.series_no, day, day + interval '1 day', 'reported', added.measure,
           (random() * 1000)::bigint, 3, 900, 100, 500, day + interval '26 hours', 1
    FROM generate_series(timestamptz '2023-01-01', timestamptz '2023-01-01' + (%(days)s - 1) * interval '1 day',
                         interval '1 day') AS day,
         added
"""
WINDOWS = """
    INSERT INTO flow_outcomes.extraction_window
        (org, work, job, window_start, window_end, requested_granularity, granularity, state, due_at, completed_at)
    SELECT 'acme', 'job:daily', 'daily', day, day + interval '1 day', 'daily', 'daily', 'complete',
           day + interval '25 hours', day + interval '26 hours'
    FROM generate_series(timestamptz '2023-01-01', timestamptz '2023-01-01' + (%(days)s - 1) * interval '1 day',
                         interval '1 day') AS day
"""
RESTATE = """
    UPDATE flow_outcomes.figure SET outcome_count = outcome_count + 1, revision = %(revision)s
    WHERE org = 'acme' AND bucket_start = '2024-12-30'
      AND series_no = (SELECT min(series_no) FROM flow_outcomes.series)
"""
SIZE = """
    SELECT sum(pg_total_relation_size(c.oid))::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'flow_outcomes'
    WHERE c.relkind = 'r'
"""
FIRST, SECOND = 2, 3  # revisions; benchmarks.storage takes 2 for its restatements
RESTATED = 0.05


def main() -> None:
    """Generate the figures and measure each export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=int, default=10_000_000)
    figures = parser.parse_args().figures
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-export-"))
    folder.chmod(0o755)
    try:
        with Embedded(folder / "postgresql", durable=False) as dsn:
            migrate(dsn)
            _generate(dsn, max(1, figures // (storage.DAYS * storage.NAMES)))
            config = _configuration(folder, dsn)
            for what in ("everything", "nothing", "one month"):
                if what == "one month":
                    _execute(dsn, (RESTATE, REVISION, ORG), revision=SECOND)
                run = measure_command([PROGRAM, "export", "--config", config])
                first, *tables = run.out.splitlines()
                result = first.partition(": ")[2]
                print_line(f"{what:<12}{run.wall:>8.1f} s {run.cpu:>8.1f} s CPU {run.peak:>6.0f} MB  {result}")
                if what == "everything":
                    print_line("\n".join(line.partition(" (")[0] for line in tables))
                    _print_sizes("", dsn, folder)
            prune = [PROGRAM, "prune", "--before", "2024-01-01", "--yes", "--config", config]
            measure_command(prune)
            _print_sizes(", the first year pruned", dsn, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _print_sizes(what: str, dsn: str, folder: Path) -> None:
    """Print the size of the figures in the database, and that of the files that the tables have at present."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(SIZE.encode()).fetchone()
    files = [file.stat().st_size for file in folder.glob("warehouse/flow_outcomes/*/data/**/*.parquet")]
    print_line(f"the database has {(row or (0,))[0] / 1e6:.0f} MB, the warehouse {sum(files) / 1e6:.0f} MB{what}")


def _generate(dsn: str, flows: int) -> None:
    _execute(
        dsn,
        (
            "SELECT flow_outcomes.ensure_partitions('2023-01-01', '2025-01-01')",
            storage.FLOW_ID,
            storage.OUTCOMES.replace("gen_random_uuid_of", "pg_temp.gen_random_uuid_of"),
            storage.FIGURES,
            MEASURES,
            storage.HISTORY,
            storage.RESTATED,
            WINDOWS,
            REVISION,
            ORG,
            "VACUUM ANALYZE",
        ),
        flows=flows,
        names=storage.NAMES,
        days=storage.DAYS,
        revision=FIRST,
        restated=RESTATED,
    )


def _execute(dsn: str, statements: tuple[str, ...], **parameters: float) -> None:
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        for statement in statements:
            connection.execute(statement.encode(), parameters if "%(" in statement else None)


def _configuration(folder: Path, dsn: str) -> Path:
    file = folder / "flow-outcomes.yaml"
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    export = {"warehouse": f"file://{folder}/warehouse"}
    file.write_text(yaml.safe_dump({"database": {"dsn": dsn}, "orgs": {"acme": org}, "export": export}))
    return file


if __name__ == "__main__":
    main()

"""Time and peak memory of an export: ``python -m benchmarks.export [--figures 10000000]``.

The figures are those of ``benchmarks.storage``, in 24 months. The first export writes all of them into a folder,
the second nothing, the third one month, of which one figure was restated.
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
RESTATE = """
    UPDATE flow_outcomes.figure SET outcome_count = outcome_count + 1, revision = 2
    WHERE org = 'acme' AND bucket_start = '2024-12-30'
      AND outcome_no = (SELECT min(outcome_no) FROM flow_outcomes.outcome)
"""


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
                    _execute(dsn, (RESTATE, REVISION, ORG), revision=2)
                run = measure_command([PROGRAM, "export", "--config", config])
                result = run.out.splitlines()[0].partition(": ")[2]
                print_line(f"{what:<12}{run.wall:>8.1f} s {run.cpu:>8.1f} s CPU {run.peak:>6.0f} MB  {result}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _generate(dsn: str, flows: int) -> None:
    _execute(
        dsn,
        (
            "SELECT flow_outcomes.ensure_partitions('2023-01-01', '2025-01-01')",
            storage.FLOW_ID,
            storage.OUTCOMES.replace("gen_random_uuid_of", "pg_temp.gen_random_uuid_of"),
            storage.FIGURES,
            REVISION,
            ORG,
            "VACUUM ANALYZE",
        ),
        flows=flows,
        names=storage.NAMES,
        days=storage.DAYS,
        revision=1,
    )


def _execute(dsn: str, statements: tuple[str, ...], **parameters: int) -> None:
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

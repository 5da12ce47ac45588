"""The dbt package in dbt/: built and tested by dbt against a stored history, where `make dbt` has installed it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
import yaml

from tests.support import sample_database
from tests.support.documents import ROOT

DBT = ROOT / ".venv" / "dbt" / "bin" / "dbt"
Run = Callable[..., subprocess.CompletedProcess[str]]
SERIES = {  # an execution's series, and its counts of three days; None is expected and not reported
    "nFlow": (100, 80, None),
    "tFlow": (100, 80, None),
    "tFlowDisconnect:DISCONNECT": (40, 20, None),
    "tFlowDisconnect:FLOW_ERROR_DISCONNECT": (5, None, None),
    "tFlowExit:TRANSFER": (55, 60, None),
}

pytestmark = pytest.mark.skipif(not DBT.exists(), reason="dbt is not installed: make dbt")


def plant_executions(dsn: str) -> None:
    """Store executions of the sample's flow for the last three days."""
    with psycopg.connect(dsn) as connection:
        for number, (key, counts) in enumerate(SERIES.items(), 100):
            connection.execute(
                "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name,"
                " outcome_name, measure, revision) VALUES ('acme', %s, %s, %s, '', '', 'executions', 1)",
                [number, sample_database.FLOW, key],
            )
            for back, count in enumerate(counts, 1):
                state = "expected" if count is None else "reported"
                connection.execute(
                    "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end,"
                    " state, measure, outcome_count, duration_count, extraction_timestamp, revision)"
                    " VALUES ('acme', 'daily', %s, %s, %s, %s, 'executions', %s, %s, now(), 1)",
                    [
                        number,
                        sample_database.midnight() - back * timedelta(days=1),
                        sample_database.midnight() - (back - 1) * timedelta(days=1),
                        state,
                        count,
                        None if key == "nFlow" else count,
                    ],
                )


@pytest.fixture
def dbt(database: str, tmp_path: Path) -> Run:
    """Runs dbt with a profile for the test's database; the README's commands."""
    sample_database.plant(database)
    plant_executions(database)
    part = psycopg.conninfo.conninfo_to_dict(database)
    target = {
        "type": "postgres",
        "host": part["host"],
        "port": int(part.get("port") or 5432),
        "user": part.get("user") or "postgres",
        "password": part.get("password") or "",
        "dbname": part["dbname"],
        "schema": "reports",
        "threads": 1,
    }
    profile = {"PROFILE": {"target": "test", "outputs": {"test": target}}}
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump(profile))
    environment = os.environ | {
        "DBT_PROFILES_DIR": str(tmp_path),
        "DBT_TARGET_PATH": str(tmp_path / "target"),
        "DBT_LOG_PATH": str(tmp_path / "logs"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }

    def run(command: str, **variables: object) -> subprocess.CompletedProcess[str]:
        words = [*command.split()[1:], "--vars", yaml.safe_dump(variables, default_flow_style=True)]
        return subprocess.run(
            [DBT, "--no-use-colors", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def commands() -> list[str]:
    text = (ROOT / "dbt" / "README.md").read_text()
    return re.findall(r"^dbt .*$", text, re.MULTILINE)


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def test_the_models_are_built_and_tested(dbt: Run, database: str) -> None:
    """Every model and test of the package passes; null stays null, and dates are those of the org's zone."""
    build, freshness = commands()
    done = dbt(build)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"PASS=\d+ WARN=0 ERROR=0 SKIP=0", done.stdout), done.stdout
    assert "Deprecat" not in done.stdout
    done = dbt(freshness)
    assert done.returncode == 0, done.stdout + done.stderr
    days = [sample_database.midnight().date() - timedelta(days=back) for back in (1, 2, 3)]
    containment: list[tuple[date, int | None, int | None, int | None, float | None]] = [
        (days[0], 100, 45, 55, 0.45),
        (days[1], 80, 20, 60, 0.25),
        (days[2], None, None, None, None),
    ]
    query = (
        "SELECT execution_date, execution_count, contained_count, left_flow_count, containment_rate"
        " FROM reports.fct_containment_daily ORDER BY 1 DESC"
    )
    assert rows(database, query) == containment
    facts = "SELECT count(*), count(outcome_count), sum(outcome_count), min(bucket_start) FROM {}"
    fact, source = "reports.fct_flow_outcome_daily", "flow_outcomes.flow_outcome"
    assert rows(database, facts.format(fact)) == rows(database, facts.format(source))
    assert rows(database, f"SELECT DISTINCT bucket_start::date - outcome_date FROM {fact}") == [(0,)]
    names = "SELECT flow_name FROM reports.dim_flow ORDER BY flow_id"
    assert rows(database, names) == [("Sales",), (sample_database.HOSTILE,)]


def test_the_variables(dbt: Run, database: str) -> None:
    """A zone moves the dates, and an excluded exit reason is not contained; quotes in them are data."""
    build, _ = commands()
    done = dbt(
        build,
        flow_outcomes_time_zones={"acme": "America/New_York", "it's": "UTC"},
        flow_outcomes_not_contained=["FLOW_ERROR_DISCONNECT", "it's"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [(last, contained, ended)] = rows(
        database,
        "SELECT execution_date, contained_count, ended_in_flow_count FROM reports.fct_containment_daily"
        " ORDER BY 1 DESC LIMIT 1",
    )
    assert (last, contained, ended) == (sample_database.midnight().date() - timedelta(days=2), 40, 45)


def test_an_org_that_is_behind(dbt: Run, database: str) -> None:
    """A stale source fails the freshness, and the test names the job although another org is current."""
    with psycopg.connect(database) as connection:
        changed = connection.execute(
            "UPDATE flow_outcomes.extraction_window SET state = 'failed', completed_at = NULL"
            " WHERE org = 'globex' AND window_end > now() - interval '5 days'"
        )
        assert changed.rowcount > 0
    build, freshness = commands()
    done = dbt(build)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN=1" in done.stdout, done.stdout
    assert dbt(freshness).returncode == 0
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE flow_outcomes.extraction_window SET state = 'failed', completed_at = NULL"
            " WHERE window_end > now() - interval '5 days'"
        )
    assert dbt(freshness).returncode == 1

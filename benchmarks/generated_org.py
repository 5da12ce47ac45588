"""An org with years of figures, generated with SQL."""

from __future__ import annotations

from datetime import datetime

import psycopg

ORG = "acme"

_FIGURES = """
    SELECT flow_outcomes.ensure_partitions('{first}', '{last}');
    INSERT INTO flow_outcomes.org (org, epoch, revision) VALUES ('acme', 1, 1);
    INSERT INTO flow_outcomes.revision VALUES ('acme', 1, now() - interval '1 day');
    INSERT INTO flow_outcomes.flow_scope VALUES ('acme', '*', NULL);
    INSERT INTO flow_outcomes.series (org, flow_id, source_key, reported_name, outcome_name, revision)
    SELECT 'acme', {flow}, {outcome}, {outcome}, {outcome}, 1
    FROM generate_series({first_flow}, {first_flow} + {flows} - 1) f, generate_series(1, {outcomes}) o;
    INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, outcome_count,
                                      outcome_percentage, extraction_timestamp, revision)
    SELECT 'acme', 'daily', series_no, d, d + interval '1 day', 'reported', series_no % 100, 0.02, now(), 1
    FROM generate_series('{first}'::timestamptz, '{last}'::timestamptz - interval '1 day', '1 day') d,
         flow_outcomes.series
    ORDER BY d, series_no;
    INSERT INTO flow_outcomes.bucket_coverage
    SELECT 'acme', 'daily', d, d + interval '1 day', '*', true, '31 days'
    FROM generate_series('{first}'::timestamptz, '{last}'::timestamptz - interval '1 day', '1 day') d;
    VACUUM ANALYZE
"""


def generate_org(
    dsn: str,
    first: datetime,
    last: datetime,
    *,
    flows: int,
    outcomes: int,
    flow: str = "'flow ' || f",
    outcome: str = "'Outcome ' || o",
    first_flow: int = 1,
) -> None:
    """Store a figure for each outcome of each flow on each day from ``first`` to before ``last``.

    Args:
        dsn: the database, with its schema.
        first: the first midnight.
        last: the midnight after the last day.
        flows: number of flows.
        outcomes: number of outcomes per flow.
        flow: SQL expression of a flow's id from its number ``f``.
        outcome: SQL expression of an outcome's name from its number ``o``.
        first_flow: the first value of ``f``; ``o`` begins at 1.
    """
    statements = _FIGURES.format(
        first=first,
        last=last,
        flows=flows,
        outcomes=outcomes,
        flow=flow,
        outcome=outcome,
        first_flow=first_flow,
    )
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        for statement in statements.split(";"):
            connection.execute(statement.encode())

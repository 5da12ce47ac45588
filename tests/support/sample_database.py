"""A sample database with windows in every state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg

from service.config import Config, config_from

DAY = timedelta(days=1)
HOSTILE = "<img src=x onerror=document.title='owned'>"
FLOW = "1f0c2a52-0000-4000-8000-000000000001"
OTHER_FLOW = "1f0c2a52-0000-4000-8000-000000000002"
SINCE = 120  # days
TRUNCATED = "the page is truncated: it has no nextPageToken"
EMPTY = "empty response for a window that has data; accepted if a later cycle confirms it"
WAREHOUSE = "file:///srv/flow-outcomes"
NOT_STORED = "completed_at = NULL, pages = 0, rows = 0"


def midnight() -> datetime:
    """Return the start of the current day."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def day(back: int) -> str:
    """Return the date ``back`` days ago."""
    return f"{midnight() - back * DAY:%Y-%m-%d}"


FAILED, LATE, RESTATED, NEVER, DOUBTED, RUNNING = 5, 9, 12, 16, 20, 2
"""How many days ago each window with that state starts."""


def config(dsn: str) -> Config:
    """Return a configuration of two orgs, one of them with an hourly job too."""
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "not-a-secret"}
    return config_from(
        {
            "database": {"dsn": dsn},
            "orgs": {"acme": org, "globex": org | {"timezone": "Europe/Berlin"}},
            "jobs": {
                "daily": {"since": f"P{SINCE}D", "off_peak": None},
                "hourly": {
                    "orgs": ["acme"],
                    "since": "P3D",
                    "window": "hour",
                    "granularity": "hourly",
                    "off_peak": None,
                },
            },
            "export": {"warehouse": WAREHOUSE, "every": None},
        }
    )


def plant(dsn: str) -> None:
    """Fill the database: every window complete except those listed above."""
    today = midnight()
    with psycopg.connect(dsn) as connection:
        for org, zone in (("acme", "UTC"), ("globex", "Europe/Berlin")):
            connection.execute(
                "INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end,"
                " requested_granularity, granularity, state, attempts, pages, rows, due_at, completed_at,"
                " complete_since)"
                " SELECT %(org)s, 'job:daily', 'daily', d AT TIME ZONE %(zone)s,"
                " (d + interval '1 day') AT TIME ZONE %(zone)s, 'daily', 'daily', 'complete', 1, 3, 250,"
                " (d + interval '25 hours') AT TIME ZONE %(zone)s, e, e"
                " FROM generate_series("
                "   date_trunc('day', now() AT TIME ZONE %(zone)s) - %(since)s * interval '1 day',"
                "   date_trunc('day', (now() - interval '1 hour') AT TIME ZONE %(zone)s) - interval '1 day',"
                "   interval '1 day') AS s (d),"
                " LATERAL (SELECT (d + interval '26 hours') AT TIME ZONE %(zone)s AS e) done",
                {"org": org, "zone": zone, "since": SINCE},
            )
            connection.execute("INSERT INTO flow_outcomes.org (org, epoch, revision) VALUES (%s, 1, 2)", [org])
        connection.execute(
            "INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end,"
            " requested_granularity, granularity, state, attempts, pages, rows, due_at, completed_at)"
            " SELECT 'acme', 'job:hourly', 'hourly', h, h + interval '1 hour', 'hourly', 'hourly', 'complete',"
            " 1, 1, 20, h + interval '2 hours', h + interval '2 hours'"
            " FROM generate_series(date_trunc('hour', now() - interval '3 days'), now() - interval '2 hours',"
            " interval '1 hour') AS s (h)"
        )
        set_day = (
            "UPDATE flow_outcomes.extraction_window SET {} WHERE org = 'acme' AND job = 'daily'"
            " AND window_start = %s"
        )
        for back, change in (
            (FAILED, f"state = 'failed', attempts = 4, last_error = '{TRUNCATED}', {NOT_STORED}"),
            (LATE, f"state = 'pending', attempts = 0, {NOT_STORED}"),
            (RUNNING, f"state = 'running', attempts = 1, {NOT_STORED}"),
            (DOUBTED, f"doubted_in = 'c1', attempts = 2, last_error = '{EMPTY}'"),
        ):
            connection.execute(set_day.format(change).encode(), [today - back * DAY])
        connection.execute(
            "DELETE FROM flow_outcomes.extraction_window"
            " WHERE org = 'acme' AND job = 'daily' AND window_start = %s",
            [today - NEVER * DAY],
        )
        _figures(connection, today)
        connection.execute(
            "INSERT INTO flow_outcomes.export_lease (org, target, export, exported_at)"
            " VALUES ('', %s, 12, now() - interval '14 minutes')",
            [f"{WAREHOUSE} flow_outcomes"],
        )


def _figures(connection: psycopg.Connection[tuple[object, ...]], today: datetime) -> None:
    run = connection.execute
    run("SELECT flow_outcomes.ensure_partitions(%s, %s)", [today - SINCE * DAY, today])
    flows = "INSERT INTO flow_outcomes.flow VALUES ('acme', %s, 'Sales'), ('acme', %s, %s)"
    run(flows, [FLOW, OTHER_FLOW, HOSTILE])
    names = ["TransferredToQueue", "Abandoned", "SelfServed", HOSTILE]
    for number, name in enumerate(names, 1):
        run(
            "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name,"
            " revision) VALUES ('acme', %s, %s, %s, %s, %s, 1)",
            [number, FLOW, name, name, name],
        )
        run(
            "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
            " outcome_count, success_count, failure_count, duration_count, duration_sum_ms, duration_min_ms,"
            " duration_max_ms, extraction_timestamp, revision)"
            " SELECT 'acme', 'daily', %(no)s, d, d + interval '1 day', (CASE WHEN absent THEN 'expected'"
            " ELSE 'reported' END)::flow_outcomes.figure_state, n, n - n / 4, n / 4, n - n / 4,"
            " (n - n / 4) * 40000, CASE WHEN n > 0 THEN 9000 END, CASE WHEN n > 0 THEN 90000 END,"
            " d + interval '26 hours', 1"
            " FROM generate_series(%(first)s::timestamptz, %(last)s::timestamptz, interval '1 day') AS s (d),"
            " LATERAL (SELECT %(no)s = 2 AND d BETWEEN %(absent)s AND %(absent)s + interval '4 days' AS absent) a,"
            " LATERAL (SELECT CASE WHEN NOT absent THEN 400 / %(no)s"
            "   + (extract(doy FROM d)::int * 7 * %(no)s) %% 40 END AS n) b"
            " WHERE d <> ALL (%(missing)s::timestamptz[])",
            {
                "no": number,
                "first": today - SINCE * DAY,
                "last": today - DAY,
                "absent": today - 40 * DAY,
                "missing": [today - FAILED * DAY, today - LATE * DAY, today - NEVER * DAY, today - RUNNING * DAY],
            },
        )
    run(
        "INSERT INTO flow_outcomes.revision VALUES ('acme', 1, now() - interval '2 days'),"
        " ('acme', 2, now() - interval '1 hour'), ('globex', 2, now() - interval '1 hour')"
    )
    restated = "INSERT INTO flow_outcomes.restated VALUES ('acme', 2, 'daily', %s, %s, %s, %s, %s)"
    run(restated, [FLOW, today - RESTATED * DAY, "Abandoned", 42, 57])
    run(restated, [FLOW, today - RESTATED * DAY, HOSTILE, 100, None])
    run(
        "INSERT INTO flow_outcomes.series_history"
        " VALUES ('acme', 3, %s, NULL, 'Self Service', 'Self Service', 0, 1)",
        [FLOW],
    )
    run(
        "INSERT INTO flow_outcomes.org_lease (org, owner, owned_since, expires_at, breaker, breaker_until,"
        " paused_until)"
        " VALUES ('acme', 'host:1', now(), now() + interval '1 hour', 'closed', NULL, NULL), ('globex', 'host:2',"
        " now(), now() + interval '1 hour', 'open', now() + interval '8 min', now() + interval '50 s')"
    )

"""Four months of daily figures with planted changes: a success rate that falls, an alias, corrections, a late day.

Each day is extracted by a revision of its own, two hours after its end, so every past instant has its figures.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg

from service.config import Config, config_from

DAYS = 119
ZONE = "Europe/Berlin"
FALLEN, RENAMED, CORRECTED, LATE, HOSTILE = "flow-0", "flow-1", "flow-2", "flow-3", "flow-4"
NAMES = {
    "flow-0": "Billing Self-Service",
    "flow-1": "Card Lock",
    "flow-2": "Delivery Status",
    "flow-3": "Appointment",
    "flow-4": "<img src=x onerror=document.title='owned'>",
    "flow-5": "客服 Familientarif",
    "flow-6": "Night Desk",
}
OLD_NAME, NEW_NAME = "VoicemailLeft", "Voicemail left"
OUTCOMES = ("Paid", "Transferred", NEW_NAME, '=HYPERLINK("x")')
MARKUP = "<script>document.title='owned'</script>"


def today() -> date:
    """Return the org's present date."""
    return datetime.now(ZoneInfo(ZONE)).date()


def midnight(back: int) -> datetime:
    """Return the start of the org's day this many days ago."""
    return datetime.combine(today() - timedelta(days=back), datetime.min.time(), ZoneInfo(ZONE))


def config(dsn: str, *, flows_aggregates: bool = True, orgs: int = 1) -> Config:
    """Return a configuration of these orgs, each with a daily job."""
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "not-a-secret", "timezone": ZONE}
    api = {"api": "flow-aggregates"} if flows_aggregates else {}
    names = ["acme", *(f"org{number:02}" for number in range(1, orgs))]
    return config_from(
        {
            "database": {"dsn": dsn},
            "orgs": dict.fromkeys(names, org | api),
            "jobs": {"daily": {"since": f"P{DAYS}D", "off_peak": None, "lookback": "P1D"}},
        }
    )


def plant(dsn: str, *, flows: int = 40, split: bool = True, org: str = "acme") -> None:
    """Fill the database with this many flows of four outcomes each."""
    with psycopg.connect(dsn) as connection:
        run = connection.execute
        values = {
            "org": org,
            "flows": flows,
            "days": DAYS,
            "zone": ZONE,
            "split": split,
            "outcomes": list(OUTCOMES),
            "start": today() - timedelta(days=DAYS),
            "last": today() - timedelta(days=1),
        }
        run("SELECT flow_outcomes.ensure_partitions(now() - interval '5 months', now() + interval '1 day')")
        run("INSERT INTO flow_outcomes.org (org, epoch, revision) VALUES (%(org)s, 1, %(days)s * 10 + 5)", values)
        run(_REVISIONS, values)
        run(_WINDOWS, values)
        run(
            "INSERT INTO flow_outcomes.bucket_coverage SELECT %(org)s, 'daily', d AT TIME ZONE %(zone)s,"
            " (d + interval '1 day') AT TIME ZONE %(zone)s, '*', true, 'P31D' FROM generate_series("
            " %(start)s::timestamp, %(last)s::timestamp, '1 day') d",
            values,
        )
        run(
            "INSERT INTO flow_outcomes.flow (org, flow_id, name, flow_type)"
            " SELECT %(org)s, 'flow-' || f, 'Inbound ' || lpad(f::text, 4, '0'), 'inboundcall'"
            " FROM generate_series(0, %(flows)s - 1) f",
            values,
        )
        for flow_id, name in NAMES.items():
            run("UPDATE flow_outcomes.flow SET name = %s WHERE flow_id = %s", [name, flow_id])
        run(_OUTCOMES, values)
        run(_FIGURES, values)
        run("UPDATE flow_outcomes.series SET outcome_name = %s WHERE org = %s AND series_no = 20", [MARKUP, org])
        _plant_changes(connection, org)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ANALYZE")


def _plant_changes(connection: psycopg.Connection[tuple[object, ...]], org: str) -> None:
    run = connection.execute
    # an alias, two days ago: the third outcome of the second flow had the old name until then
    run(
        "INSERT INTO flow_outcomes.series_history SELECT org, series_no, flow_id, outcome_id, reported_name,"
        " %s, 0, %s FROM flow_outcomes.series WHERE org = %s AND series_no = 7",
        [OLD_NAME, DAYS * 10 - 15, org],
    )
    run("UPDATE flow_outcomes.series SET revision = %s WHERE org = %s AND series_no = 7", [DAYS * 10 - 15, org])
    run("UPDATE flow_outcomes.series SET reported_name = %s WHERE org = %s AND series_no = 7", [OLD_NAME, org])
    run("UPDATE flow_outcomes.series_history SET reported_name = %s WHERE org = %s", [OLD_NAME, org])
    # corrections of the third flow, yesterday and today, of the first outcome four and five days ago
    for revision, back in ((DAYS * 10 - 5, 4), (DAYS * 10 + 5, 5)):
        where = f"org = '{org}' AND series_no = 9 AND bucket_start = %(start)s"
        values = {
            "start": midnight(back),
            "revision": revision,
            "org": org,
            "flow": CORRECTED,
        }
        run(
            "INSERT INTO flow_outcomes.restated SELECT org, %(revision)s, granularity, %(flow)s, bucket_start,"
            f" 'Paid', outcome_count, outcome_count + 27 FROM flow_outcomes.figure WHERE {where}",
            values,
        )
        run(
            "INSERT INTO flow_outcomes.figure_history (org, granularity, series_no, bucket_start, bucket_end,"
            " state, outcome_count, success_count, failure_count, duration_count, duration_sum_ms,"
            " extraction_timestamp, revision, until_revision) SELECT org, granularity, series_no, bucket_start,"
            " bucket_end, state, outcome_count, success_count, failure_count, duration_count, duration_sum_ms,"
            f" extraction_timestamp, revision, %(revision)s FROM flow_outcomes.figure WHERE {where}",
            values,
        )
        run(
            "UPDATE flow_outcomes.figure SET outcome_count = outcome_count + 27, revision = %(revision)s,"
            f" success_count = success_count + 27 WHERE {where}",
            values,
        )
    # the fourth flow's figures of three days ago came yesterday only
    run(
        "UPDATE flow_outcomes.figure SET revision = %s WHERE org = %s AND series_no BETWEEN 13 AND 16"
        " AND bucket_start = %s",
        [DAYS * 10 - 5, org, midnight(3)],
    )
    # the seventh flow has been silent for three days
    run(
        "UPDATE flow_outcomes.figure SET state = 'expected', outcome_count = NULL, success_count = NULL,"
        " failure_count = NULL, duration_count = NULL, duration_sum_ms = NULL"
        " WHERE org = %s AND series_no BETWEEN 25 AND 28 AND bucket_start >= %s",
        [org, midnight(3)],
    )


# Revision 10 n stores day n; the changes have numbers that end in 5. None is stamped in the future.
_REVISIONS = """
    INSERT INTO flow_outcomes.revision
    SELECT %(org)s, n * 10 + half, least(
        (%(start)s::timestamp + n * interval '1 day' + CASE half WHEN 0 THEN interval '2 hours'
                                                                 ELSE interval '10 hours' END)
            AT TIME ZONE %(zone)s,
        now() - make_interval(secs => 60 * (%(days)s - n) + 30 - half))
    FROM generate_series(1, %(days)s) n, (VALUES (0), (5)) h (half)
    WHERE half = 0 OR n >= %(days)s - 2
"""

_WINDOWS = """
    INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end, requested_granularity,
        granularity, state, attempts, pages, rows, due_at, completed_at, complete_since)
    SELECT %(org)s, 'job:daily', 'daily', d AT TIME ZONE %(zone)s, (d + interval '1 day') AT TIME ZONE %(zone)s,
           'daily', 'daily', 'complete', 1, 3, 250, (d + interval '25 hours') AT TIME ZONE %(zone)s, e, e
    FROM generate_series(%(start)s::timestamp, %(last)s::timestamp, '1 day') d,
         LATERAL (SELECT least((d + interval '26 hours') AT TIME ZONE %(zone)s, now()) AS e) done
"""

_OUTCOMES = """
    INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name, outcome_name, revision)
    SELECT %(org)s, f * 4 + o, 'flow-' || f, name, name, name, 0
    FROM generate_series(0, %(flows)s - 1) f, unnest(%(outcomes)s::text[]) WITH ORDINALITY AS each (name, o)
"""

# Fewer on weekends, the first outcome the largest; the first flow's successes fall in the last week.
_FIGURES = """
    INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state, outcome_count,
        success_count, failure_count, duration_count, duration_sum_ms, extraction_timestamp, revision)
    SELECT %(org)s, 'daily', f * 4 + o, d AT TIME ZONE %(zone)s, (d + interval '1 day') AT TIME ZONE %(zone)s,
           'reported', count, CASE WHEN %(split)s THEN success END, CASE WHEN %(split)s THEN count - success END,
           CASE WHEN %(split)s THEN success END,
           CASE WHEN %(split)s THEN success * (90000 + f * 700 + noise * 9000)::bigint END,
           (d + interval '26 hours') AT TIME ZONE %(zone)s, (d::date - %(start)s::date + 1) * 10
    FROM generate_series(0, %(flows)s - 1) f, generate_series(1, 4) o,
         generate_series(%(start)s::timestamp, %(last)s::timestamp, '1 day') d,
         LATERAL (SELECT abs(hashtext(f || '/' || o || '/' || d)) %% 1000 / 1000.0 AS noise) n,
         LATERAL (SELECT ((400 + f * 37 %% 600) / (o * o)
                          * CASE WHEN extract(isodow FROM d) > 5 THEN 0.6 ELSE 1 END
                          * (0.9 + 0.2 * noise))::bigint AS count) c,
         LATERAL (SELECT round(count * (0.62 + f * 13 %% 23 / 100.0 - CASE
                         WHEN f = 0 AND d > %(last)s::timestamp - interval '7 days' THEN 0.11 ELSE 0 END))::bigint
                         AS success) s
"""

"""The page's first view on a large database: 5 orgs, 1,000 flows each, 3 years of days and hours.

    python -m benchmarks.page [--flows 1000] [--years 3] [--orgs 5] [--figures 1] [--keep FOLDER]

The ledger has every daily and hourly window of every org. The first ``--figures`` orgs have daily figures, five
outcomes per flow, one in fifty restated with its former version. Prints the time of each request, cold (empty
cache) and repeated, and of the first view of the overview with the requests as a browser sends them; for
the latter the CPU time too, which other work on the machine changes less.
"""

# ruff: noqa: T201 - a script that prints its figures

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import aiohttp  # requests the page as a browser does
import psycopg
from psycopg.conninfo import make_conninfo

from service.config import Config, config_from
from service.postgres.embedded.server import Embedded
from service.postgres.migrate import migrate
from service.web import WebServer
from tests.support.fake_daemon import FakeDaemon

ROUNDS = 9
OUTCOMES = 5
FILES = (
    "base.css",
    "views.css",
    "uplot.css",
    "uplot.js",
    "main.js",
    "overview.js",
    "flow.js",
    "health.js",
    "dom.js",
)


def generate(dsn: str, orgs: list[str], flows: int, days: int, with_figures: int) -> None:
    """Fill the tables with years of data."""
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC -c work_mem=256MB") as connection:
        run = connection.execute
        run("SET maintenance_work_mem = '512MB'")
        run("SELECT flow_outcomes.ensure_partitions(now() - make_interval(days => %s), now())", [days + 40])
        for place, org in enumerate(orgs):
            values = {"org": org, "days": days, "flows": flows, "outcomes": OUTCOMES}
            run("INSERT INTO flow_outcomes.org (org, revision) VALUES (%(org)s, %(days)s)", values)
            for job, step, granularity in (("daily", "1 day", "daily"), ("hourly", "1 hour", "hourly")):
                run(
                    "INSERT INTO flow_outcomes.extraction_window (org, work, job, window_start, window_end,"
                    " requested_granularity, granularity, state, attempts, pages, rows, due_at, completed_at,"
                    " complete_since) SELECT %(org)s, 'job:' || %(job)s, %(job)s, s, s + step,"
                    " %(granularity)s, %(granularity)s, CASE WHEN random() < 0.002 THEN 'failed' ELSE 'complete'"
                    " END, 1, 10, 5000, s + interval '25 hours', s + interval '26 hours',"
                    " s + interval '26 hours' FROM (SELECT %(step)s::interval) i (step), LATERAL generate_series("
                    " date_trunc('day', now()) - make_interval(days => %(days)s),"
                    " now() - interval '1 hour' - step, step) g (s)",
                    values | {"job": job, "step": step, "granularity": granularity},
                )
            run(
                "INSERT INTO flow_outcomes.flow SELECT %(org)s, 'flow-' || f, 'Flow number ' || f"
                " FROM generate_series(1, %(flows)s) f",
                values,
            )
            run(
                "INSERT INTO flow_outcomes.series (org, series_no, flow_id, source_key, reported_name,"
                " outcome_name, revision) SELECT %(org)s, (f - 1) * %(outcomes)s + o, 'flow-' || f,"
                " 'outcome ' || o, 'outcome ' || o, 'outcome ' || o, 1"
                " FROM generate_series(1, %(flows)s) f, generate_series(1, %(outcomes)s) o",
                values,
            )
            run(
                "INSERT INTO flow_outcomes.revision SELECT %(org)s, r, now() - make_interval(days => %(days)s - r)"
                " FROM generate_series(1, %(days)s) r",
                values,
            )
            run(
                "INSERT INTO flow_outcomes.bucket_coverage SELECT %(org)s, 'daily', s, s + interval '1 day', '*',"
                " true, 'P31D' FROM generate_series(date_trunc('day', now()) - make_interval(days => %(days)s),"
                " date_trunc('day', now()) - interval '1 day', interval '1 day') s",
                values,
            )
            run(
                "INSERT INTO flow_outcomes.restated SELECT %(org)s, greatest(1, %(days)s - d), 'daily',"
                " 'flow-' || f, date_trunc('day', now()) - make_interval(days => d), 'outcome ' || (f %% 5 + 1),"
                " 10, 11"
                " FROM generate_series(1, %(days)s) d, generate_series(1, %(flows)s, 10) f",
                values,
            )
            if place < with_figures:
                run(
                    "INSERT INTO flow_outcomes.figure SELECT %(org)s, 'daily', o, s, s + interval '1 day',"
                    " 'reported', 'outcomes', (random() * 500)::bigint, NULL, NULL, NULL,"
                    " s + interval '26 hours', 1 + date_part('day', s - (date_trunc('day', now())"
                    " - make_interval(days => %(days)s)))::int"
                    " FROM generate_series(date_trunc('day', now()) - make_interval(days => %(days)s),"
                    " date_trunc('day', now()) - interval '1 day', interval '1 day') s,"
                    " generate_series(1, %(flows)s * %(outcomes)s) o",
                    values,
                )
                run(  # the versions that the restatements replaced
                    "INSERT INTO flow_outcomes.figure_history (org, granularity, series_no, bucket_start,"
                    " bucket_end, state, outcome_count, extraction_timestamp, revision, until_revision)"
                    " SELECT f.org, f.granularity, f.series_no, f.bucket_start, f.bucket_end, f.state, 10,"
                    " f.extraction_timestamp, f.revision - 1, f.revision FROM flow_outcomes.restated s"
                    " JOIN flow_outcomes.series o ON o.org = s.org AND o.flow_id = s.flow_id"
                    " AND o.outcome_name = s.outcome_name"
                    " JOIN flow_outcomes.figure f ON f.org = o.org AND f.series_no = o.series_no"
                    " AND f.bucket_start = s.bucket_start AND f.granularity = s.granularity"
                    " WHERE s.org = %(org)s",
                    values,
                )
        run("ANALYZE")


def configuration(dsn: str, orgs: list[str], days: int) -> Config:
    """Return a configuration whose jobs have exactly those windows."""
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "not-a-secret"}
    job = {"since": f"P{days}D", "off_peak": None}
    return config_from(
        {
            "database": {"dsn": dsn},
            "orgs": dict.fromkeys(orgs, org),
            "jobs": {"daily": job, "hourly": job | {"window": "hour", "granularity": "hourly"}},
        }
    )


async def measure(dsn: str, config: Config, postmaster: int) -> None:
    """Request the first view as the page's script does, and print the times."""
    org, flow = next(iter(config.orgs)), "flow-11"
    span = f"org={org}&flow={flow}&granularity=daily"
    ago, before = (f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for days in (5, 30))
    paths = [
        "/",
        "/api/now",
        f"/api/overview?org={org}",
        f"/api/overview?org={org}&measure=count",
        f"/api/flow?{span}",
        f"/api/instants?{span}",
        f"/api/flow?{span}&at={ago}",
        f"/api/differences?{span}&at={ago}",
        f"/api/differences?{span}&at={before}&with={ago}",
        f"/api/differences?{span}&at={ago}&from={date.today() - timedelta(days=1095)}",  # noqa: DTZ011 - a span
        "/api/strips",
        f"/api/calendar?org={org}",
        "/api/timeline",
        "/api/suggestions",
        f"/api/suggestions?org={org}&flow={flow}",
    ]
    files = [f"/static/{name}" for name in FILES]
    cold: dict[str, list[float]] = {path: [] for path in paths}
    warm: dict[str, list[float]] = {path: [] for path in paths}
    first_views: list[float] = []
    cpu: list[tuple[float, float]] = []
    async with aiohttp.ClientSession() as session:  # noqa: TID251 - the program's own server

        async def get(address: str, path: str) -> float:
            began = time.perf_counter()
            async with session.get(f"http://{address}{path}") as response:
                body = await response.read()
                if response.status != 200:  # noqa: PLR2004 - OK
                    raise SystemExit(f"{path}: {response.status} {body.decode()}")
            return (time.perf_counter() - began) * 1000

        for _ in range(ROUNDS):
            site = WebServer(FakeDaemon(config, dsn))
            address = await site.start("127.0.0.1", 0)
            for path in paths:
                cold[path].append(await get(address, path))
                warm[path].append(await get(address, path))
            await site.stop()
            await asyncio.sleep(0.3)  # until the ended sessions are counted
            site = WebServer(FakeDaemon(config, dsn))
            address = await site.start("127.0.0.1", 0)
            began, own, backends = time.perf_counter(), time.process_time(), children_cpu(postmaster)
            await get(address, "/")
            wanted = [*files, "/api/now", f"/api/overview?org={org}"]
            await asyncio.gather(*(get(address, path) for path in wanted))
            first_views.append((time.perf_counter() - began) * 1000)
            await site.stop()
            await asyncio.sleep(0.3)  # until the ended sessions are counted
            cpu.append((time.process_time() - own, children_cpu(postmaster) - backends))
    for path in paths:
        print(
            f"{path:<96} {statistics.median(cold[path]):8.1f} ms  repeated {statistics.median(warm[path]):6.1f} ms"
        )
    own_cpu, backend_cpu = (statistics.mean(each) * 1000 for each in zip(*cpu, strict=True))
    each = ", ".join(f"{took:.0f}" for took in sorted(first_views))
    print(f"first view, as a browser requests it: median {statistics.median(first_views):.0f} ms of {each}")
    print(f"of CPU time {own_cpu:.0f} ms here, the client's included, and {backend_cpu:.0f} ms in PostgreSQL")


def children_cpu(pid: int) -> float:
    """Return the CPU seconds of a process's children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Generate the data and measure."""
    parser = argparse.ArgumentParser()
    for name, default in (("flows", 1000), ("years", 3), ("orgs", 5), ("figures", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, help="a folder for the database, reused if it exists")
    arguments = parser.parse_args()
    days, orgs = arguments.years * 365, [f"org{number}" for number in range(1, arguments.orgs + 1)]
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="flow-outcomes-page-"))
    fresh = not (folder / "data").exists()
    with Embedded(folder, durable=False) as dsn:
        if fresh:
            migrate(dsn)
            began = time.perf_counter()
            generate(make_conninfo(dsn), orgs, arguments.flows, days, arguments.figures)
            print(f"generated in {time.perf_counter() - began:.0f} s")
        postmaster = int((folder / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        asyncio.run(measure(dsn, configuration(dsn, orgs, days), postmaster))


if __name__ == "__main__":
    main()

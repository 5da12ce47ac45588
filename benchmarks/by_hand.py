"""The minimum of work, written by hand: fetch, COPY, merge, and nothing else.

    python -m benchmarks.by_hand fetch|copy URL DAYS [DSN]

``fetch`` reads and decodes the pages and drops them. ``copy`` loads them with COPY into a temporary table and
merges them once: no ledger, no history, no validation, no alias, no limit, no retry. It is a lower bound for the
program, not something to run in production.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import msgspec
import psycopg

from benchmarks.span import query

TABLE = """
    CREATE TABLE IF NOT EXISTS by_hand (
        flow_id text, bucket_start timestamptz, bucket_end timestamptz, outcome_name text, outcome_count bigint,
        outcome_percentage double precision, PRIMARY KEY (flow_id, bucket_start, outcome_name)
    )
"""
INCOMING = "CREATE TEMP TABLE incoming (LIKE by_hand) ON COMMIT DROP"
MERGE = """
    INSERT INTO by_hand
    SELECT i.* FROM incoming i LEFT JOIN by_hand b USING (flow_id, bucket_start, outcome_name)
    WHERE (b.outcome_count, b.outcome_percentage) IS DISTINCT FROM (i.outcome_count, i.outcome_percentage)
    ORDER BY i.flow_id, i.bucket_start, i.outcome_name
    ON CONFLICT (flow_id, bucket_start, outcome_name) DO UPDATE
        SET outcome_count = EXCLUDED.outcome_count, outcome_percentage = EXCLUDED.outcome_percentage
"""


async def pages(url: str, days: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the decoded entries of each page."""
    request = query(days)
    async with aiohttp.ClientSession() as session:  # noqa: TID251 - not the program
        async with session.post(f"{url}/oauth/token") as response:
            headers = {"Authorization": f"Bearer {msgspec.json.decode(await response.read())['access_token']}"}
        while True:
            async with session.post(
                f"{url}/api/v2/analytics/query-builder/query", json={"queryBuilder": request}, headers=headers
            ) as response:
                page = msgspec.json.decode(await response.read())
            yield page["data"]
            if page["nextPageToken"] is None:
                return
            request["nextPageToken"] = page["nextPageToken"]


async def fetch(url: str, days: int) -> int:
    """Read and decode all pages; return the number of rows."""
    rows = 0
    async for entries in pages(url, days):
        rows += sum(len(entry["metrics"]["flow-outcomes"]) for entry in entries)
    return rows


async def copy(url: str, days: int, dsn: str) -> int:
    """Read, COPY and merge; return the number of rows."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(TABLE)
        await connection.execute(INCOMING)
        async with (
            connection.cursor() as cursor,
            cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as into,
        ):
            into.set_types(("text", "timestamptz", "timestamptz", "text", "int8", "float8"))
            async for entries in pages(url, days):
                for entry in entries:
                    start, end = map(datetime.fromisoformat, entry["interval"].split("/"))
                    flow = entry["group"]["flow-id"]
                    for name, figure in entry["metrics"]["flow-outcomes"].items():
                        await into.write_row((flow, start, end, name, figure["count"], figure["percentOfTotal"]))
        await connection.execute("ANALYZE incoming")
        await connection.execute(MERGE)
        row = await (await connection.execute("SELECT count(*) FROM by_hand")).fetchone()
    return row[0] if row else 0


def main() -> None:
    """Run one mode and print the number of rows."""
    mode, url, days, *dsn = sys.argv[1:]
    rows = asyncio.run(fetch(url, int(days)) if mode == "fetch" else copy(url, int(days), dsn[0]))
    sys.stdout.write(f"{rows}\n")


if __name__ == "__main__":
    main()

"""What was learned of queries that were too large or too wide; it is forgotten after a while."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from service.model import Granularity, QueryWidth, Span, SplitHint
from service.postgres.pool import Database

# A process that was taken over has an earlier epoch: its statement changes nothing.
IS_OWNER = "EXISTS (SELECT FROM flow_outcomes.org WHERE org = %(org)s AND epoch = %(epoch)s)"


class SplitLedger:
    """The hints and widths of one org. Only the org's owner writes here, under its epoch.

    Args:
        database: where they are stored.
        org: the org's name.
        api: the org's API; what was learned of one does not hold for another.
        epoch: of the owner's lease.
    """

    def __init__(self, database: Database, org: str, api: str, epoch: int) -> None:
        self._database = database
        self._key = {"org": org, "api": api, "epoch": epoch}

    async def hints(self, since: datetime) -> list[SplitHint]:
        """The queries whose results were too large, of those that were split since then."""
        async with self._database.connection() as connection:
            rows = await connection.fetch_all(
                _Split,
                """
                SELECT granularity, span_start, span_end, by_flow, half
                FROM flow_outcomes.query_split WHERE org = %(org)s AND api = %(api)s AND split_at > %(since)s
                """,
                {**self._key, "since": since},
            )
        return [
            SplitHint(Granularity(row.granularity), Span(row.span_start, row.span_end), row.by_flow, row.half)
            for row in rows
        ]

    async def note_hint(self, query_hash: str, hint: SplitHint, now: datetime) -> None:
        """Record that a query's result was too large."""
        await self._write(
            f"""
            INSERT INTO flow_outcomes.query_split
                (org, api, query_hash, granularity, span_start, span_end, by_flow, half, split_at)
            SELECT %(org)s, %(api)s, %(query_hash)s, %(granularity)s, %(start)s, %(end)s, %(by_flow)s, %(half)s,
                   %(now)s
            WHERE {IS_OWNER}
            ON CONFLICT (org, query_hash) DO UPDATE SET half = excluded.half, split_at = excluded.split_at
            """,
            query_hash=query_hash,
            granularity=hint.granularity.value,
            start=hint.span.start,
            end=hint.span.end,
            by_flow=hint.by_flow,
            half=hint.half,
            now=now,
        )

    async def widths(self) -> dict[Granularity, QueryWidth]:
        """What was learned of the width of queries, by granularity."""
        async with self._database.connection() as connection:
            rows = await connection.fetch_all(
                _Width,
                """
                SELECT granularity, served, refused, learned_at, first_in
                FROM flow_outcomes.query_width WHERE org = %(org)s AND api = %(api)s
                """,
                self._key,
            )
        return {Granularity(row.granularity): QueryWidth(*row[1:]) for row in rows}

    async def note_width(self, granularity: Granularity, width: QueryWidth | None) -> None:
        """Record what was learned; None forgets it."""
        if width is None:
            await self._write(
                f"""
                DELETE FROM flow_outcomes.query_width
                WHERE org = %(org)s AND api = %(api)s AND granularity = %(granularity)s AND {IS_OWNER}
                """,
                granularity=granularity.value,
            )
            return
        await self._write(
            f"""
            INSERT INTO flow_outcomes.query_width (org, api, granularity, served, refused, learned_at, first_in)
            SELECT %(org)s, %(api)s, %(granularity)s, %(served)s, %(refused)s, %(learned_at)s, %(first_in)s
            WHERE {IS_OWNER}
            ON CONFLICT (org, api, granularity) DO UPDATE
            SET served = excluded.served, refused = excluded.refused, learned_at = excluded.learned_at,
                first_in = excluded.first_in
            """,
            granularity=granularity.value,
            **width._asdict(),
        )

    async def _write(self, statement: str, **values: object) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(statement, {**self._key, **values})


class _Split(NamedTuple):
    granularity: str
    span_start: datetime
    span_end: datetime
    by_flow: bool
    half: int


class _Width(NamedTuple):
    granularity: str
    served: int | None
    refused: int | None
    learned_at: datetime
    first_in: str | None

"""Runs the statements of one merge, in its transaction and with its parameters."""

from __future__ import annotations

from typing import Any, LiteralString, TypeVar

from psycopg.rows import class_row, scalar_row

from service.postgres.pool import Connection

Row = TypeVar("Row")


class MergeSession:
    """A merge's connection.

    Attributes:
        connection: in the transaction.
        parameters: of every statement, by name.
    """

    def __init__(self, connection: Connection, parameters: dict[str, Any]) -> None:
        self.connection = connection
        self.parameters = parameters

    async def execute(self, statement: LiteralString, **more: object) -> int:
        """Run a statement, and return how many rows it affected."""
        cursor = await self.connection.execute(statement, {**self.parameters, **more})
        return cursor.rowcount

    async def rows(self, row: type[Row], statement: LiteralString, **more: object) -> list[Row]:
        """Run a query, and return its rows as objects of a class, by the names of the columns."""
        async with self.connection.cursor(row_factory=class_row(row)) as cursor:
            await cursor.execute(statement, {**self.parameters, **more})
            return await cursor.fetchall()

    async def value(self, statement: LiteralString) -> Any:
        """Run a query of one row and one column, and return its value."""
        async with self.connection.cursor(row_factory=scalar_row) as cursor:
            await cursor.execute(statement, self.parameters)
            return await cursor.fetchone()

    async def insert_and_analyze(self, statement: LiteralString, table: LiteralString) -> int:
        """Fill a temporary table, gather its statistics, and return how many rows it has."""
        rows = await self.execute(statement)
        await self.connection.execute(f"ANALYZE pg_temp.{table}")
        return rows

    async def run_pipelined(self, *statements: LiteralString, **more: object) -> list[int]:
        """Run statements without waiting between them, and return how many rows each affected."""
        parameters = {**self.parameters, **more}
        async with self.connection.pipeline():
            cursors = [await self.connection.execute(statement, parameters) for statement in statements]
        return [cursor.rowcount for cursor in cursors]

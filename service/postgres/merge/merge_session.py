"""A merge's transaction: its connection, and the parameters that its statements share."""

from __future__ import annotations

from typing import Any, LiteralString

from service.postgres.pool import Connection


class Session:
    """Runs a merge's statements.

    Attributes:
        connection: in the transaction.
        parameters: of every statement, by name.
    """

    def __init__(self, connection: Connection, parameters: dict[str, Any]) -> None:
        self.connection = connection
        self.parameters = parameters

    async def run(self, statement: LiteralString, **more: object) -> list[tuple[Any, ...]]:
        """Run it, for its rows, if it has any."""
        cursor = await self.connection.execute(statement, {**self.parameters, **more})
        return await cursor.fetchall() if cursor.description else []

    async def count(self, statement: LiteralString, **more: object) -> int:
        """Run it, for how many rows it touched."""
        cursor = await self.connection.execute(statement, {**self.parameters, **more})
        return cursor.rowcount

    async def insert_and_analyze(self, statement: LiteralString, table: LiteralString) -> int:
        """Fill one of the session's own tables, and let the planner know how large it is; its rows."""
        rows = await self.count(statement)
        await self.run(f"ANALYZE pg_temp.{table}")
        return rows

    async def run_pipelined(self, *statements: LiteralString, **more: object) -> list[int]:
        """Run statements, none waiting for the answer to the one before, for how many rows each touched."""
        parameters = {**self.parameters, **more}
        async with self.connection.pipeline():
            cursors = [await self.connection.execute(statement, parameters) for statement in statements]
        return [cursor.rowcount for cursor in cursors]

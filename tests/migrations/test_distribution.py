"""The schema and the statements follow the rules that docs/scaling.md gives for a distributed PostgreSQL."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scaling.md").read_text()
STATEMENTS = "\n".join(file.read_text() for file in (ROOT / "service" / "postgres").rglob("*.py"))


def column(dsn: str, query: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute(query.encode()).fetchall()}


def listed() -> tuple[set[str], set[str]]:
    """The tables that the document distributes, and those that it keeps local."""
    spread, kept = (set(re.findall(r"'(\w+)'", part)) for part in re.findall(r"ARRAY\[(.*?)\]", TEXT, re.DOTALL))
    return spread | {"org"}, kept


def test_every_table_is_in_the_list(database: str) -> None:
    """Each table is distributed or local, and each table in the document exists."""
    tables = column(
        database,
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'flow_outcomes' AND relkind IN ('r', 'p') AND NOT relispartition"
        " AND relname NOT LIKE '%yoyo%'",
    )
    spread, kept = listed()
    assert spread | kept == tables
    assert not spread & kept


def test_triggers_are_on_local_tables_only(database: str) -> None:
    """Distributed tables cannot have triggers."""
    found = column(
        database,
        "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'flow_outcomes' AND NOT tgisinternal",
    )
    assert found <= listed()[1]


def test_statements_on_sessions_use_local_tables_only() -> None:
    """A statement on the server's sessions names no distributed table: it would read another node's sessions."""
    on_sessions = [text for text in texts() if "pg_stat_activity" in text or "pg_locks" in text]
    assert len(on_sessions) > 2
    named = {table for text in on_sessions for table in re.findall(r"flow_outcomes\.(\w+)", text)}
    assert named
    assert named <= listed()[1]


def texts() -> Iterator[str]:
    """Every string constant in the statements' modules, f-strings joined."""
    for file in (ROOT / "service" / "postgres").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Constant(value=str() as text):
                    yield text
                case ast.JoinedStr(values=parts):
                    yield "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))


def test_numbers_are_wide_enough(database: str) -> None:
    """Nodes number rows independently, which needs a bigint."""
    narrow = column(
        database,
        "SELECT table_name || '.' || column_name FROM information_schema.columns"
        " WHERE table_schema = 'flow_outcomes' AND data_type <> 'bigint'"
        " AND (is_identity = 'YES' OR column_default LIKE 'nextval%')",
    )
    assert narrow == set()


def test_statements_keep_the_rules() -> None:
    """No row moves to another org, there is no MERGE, and no upsert calls a volatile function."""
    assert not re.search(r"\bMERGE\s+INTO\b", STATEMENTS)
    assert not re.search(r"\bSET\s+org\s*=", STATEMENTS)
    upserts = re.findall(r"DO UPDATE SET(.*?)(?:\"\"\"|RETURNING|\)\s*$)", STATEMENTS, re.DOTALL | re.MULTILINE)
    assert upserts
    assert not [each for each in upserts if re.search(r"\b(now|clock_timestamp|random)\(", each)]

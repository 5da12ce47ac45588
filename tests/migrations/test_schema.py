"""The schema: up, down and up again, and orgs that share nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.postgres.embedded import binaries
from service.postgres.migrate import known_migrations, migrate, migrations_dir, pending_migrations, rollback

OF_THE_SCHEMA = "n.nspname = 'flow_outcomes' AND c.relname NOT LIKE '%yoyo%'"


def dump(dsn: str) -> list[str]:
    """The schema as pg_dump writes it, without yoyo's tables and the dump's random tokens."""
    command = [str(binaries.installed() / "pg_dump"), "--schema-only", "--exclude-table=flow_outcomes.*yoyo*", dsn]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]


def fetch(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


def test_up_down_and_up_again(empty_database: str) -> None:
    """The rollback leaves nothing, and a second migration gives the identical schema."""
    assert migrate(empty_database) == known_migrations()
    complete = dump(empty_database)
    assert rollback(empty_database) == known_migrations()[::-1]
    left = fetch(
        empty_database,
        f"""SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OF_THE_SCHEMA}
            UNION ALL SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'flow_outcomes'::regnamespace
            UNION ALL SELECT t.typname FROM pg_type t
            WHERE t.typnamespace = 'flow_outcomes'::regnamespace AND t.typname NOT LIKE '%yoyo%'""",
    )
    assert left == []
    assert pending_migrations(empty_database) == known_migrations()
    migrate(empty_database)
    assert dump(empty_database) == complete


def test_each_step_back_undoes_its_step(empty_database: str, tmp_path: Path) -> None:
    """Each migration and its rollback give the schema before it."""
    for name in known_migrations():
        before = dump(empty_database)
        for file in (f"{name}.sql", f"{name}.rollback.sql"):
            shutil.copy(migrations_dir() / file, tmp_path)
        assert migrate(empty_database, tmp_path) == [name]
        earlier = known_migrations(tmp_path)[-2:-1]
        if earlier:  # the first rollback leaves the schema itself, which has yoyo's tables
            assert rollback(empty_database, earlier[0], tmp_path) == [name]
            assert dump(empty_database) == before
            migrate(empty_database, tmp_path)


@pytest.mark.parametrize(
    ("what", "query"),
    [
        (
            "a unique key that does not begin with org",
            f"""SELECT i.indexrelid::regclass::text FROM pg_index i
                JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE {OF_THE_SCHEMA} AND i.indisunique AND NOT EXISTS (
                    SELECT FROM pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0] AND a.attname = 'org')""",
        ),
        (
            "an exclusion constraint",
            """SELECT conname FROM pg_constraint
               WHERE contype = 'x' AND connamespace = 'flow_outcomes'::regnamespace""",
        ),
        (
            "a table without org",
            f"""SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE {OF_THE_SCHEMA} AND c.relkind IN ('r', 'p') AND NOT EXISTS (
                    SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'org' AND a.attnotnull
                    AND a.atttypid = 'text'::regtype AND a.attcollation = 'default'::regcollation)""",
        ),
        (
            "a table of a kind that cannot be spread, or with rules or policies",
            f"""SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE {OF_THE_SCHEMA} AND (c.relkind IN ('f', 'm') OR c.relkind IN ('r', 'p') AND (
                    c.relpersistence = 't' OR c.relhasrules OR c.relrowsecurity
                    OR NOT c.relispartition AND EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)))""",
        ),
        (
            "a foreign key that leaves the org",
            """SELECT k.conname FROM pg_constraint k
               WHERE k.contype = 'f' AND k.connamespace = 'flow_outcomes'::regnamespace AND NOT EXISTS (
                   SELECT FROM pg_attribute a
                   WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attname = 'org')""",
        ),
        (
            "partitions of another kind than by range",
            f"""SELECT c.relname FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {OF_THE_SCHEMA} AND p.partstrat <> 'r'""",
        ),
        (
            "a partition of a partition",
            f"""SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE {OF_THE_SCHEMA} AND c.relkind = 'p' AND c.relispartition""",
        ),
    ],
)
def test_orgs_share_nothing(database: str, what: str, query: str) -> None:
    """Each row belongs to one org, by which every key begins."""
    assert fetch(database, query) == [], what


def test_every_table_can_be_published(database: str) -> None:
    """Each permanent table, with the partitions and yoyo's tables, has what identifies a row for a subscriber."""
    assert fetch(database, "SELECT flow_outcomes.ensure_partitions('2024-01-01Z', '2024-01-02Z')") == [(2,)]
    without = """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'flow_outcomes' AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
          AND c.relreplident <> 'f' AND NOT EXISTS (
              SELECT FROM pg_index i WHERE i.indrelid = c.oid
              AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END)"""
    assert fetch(database, without) == []
    assert fetch(database, without.replace("<> 'f'", "= 'f'")) == [("outcome_alias",)]


def test_each_public_relation_and_column_is_described(database: str) -> None:
    """Every view, the public tables, their columns, and the functions that a report calls: a BI tool shows it."""
    public = "(c.relkind = 'v' OR c.relname IN ('outcome_alias', 'extraction_window', 'flow'))"
    columns = fetch(
        database,
        f"""SELECT c.relname, a.attname, obj_description(c.oid, 'pg_class'), col_description(c.oid, a.attnum)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE {OF_THE_SCHEMA} AND {public}""",
    )
    assert len({relation for relation, *_ in columns}) >= 10
    assert [row[:2] for row in columns if not row[2] or not row[3]] == []
    functions = fetch(
        database,
        """SELECT p.proname, obj_description(p.oid, 'pg_proc') FROM pg_proc p
           WHERE p.pronamespace = 'flow_outcomes'::regnamespace AND p.proname LIKE '%as_of'""",
    )
    assert len(functions) >= 4
    assert [name for name, description in functions if not description] == []

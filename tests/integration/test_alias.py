"""The table of aliases: the entries that it rejects, whoever writes them, and its commands."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.cli import main
from service.postgres import aliases
from service.postgres.aliases import Alias, AliasError
from service.postgres.pool import Database

ADD = "INSERT INTO flow_outcomes.outcome_alias (org, flow_id, old_name, new_name) VALUES ('acme', %s, %s, %s)"
CYCLE = psycopg.errors.CheckViolation

Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def other(database: str) -> Iterator[Session]:
    with psycopg.connect(database) as connection:
        yield connection


def entries(session: Session) -> list[tuple[Any, ...]]:
    return session.execute(
        "SELECT flow_id, old_name, new_name FROM flow_outcomes.outcome_alias"
        " ORDER BY flow_id NULLS FIRST, old_name"
    ).fetchall()


@pytest.mark.parametrize(
    "cycle",
    [
        [(None, "A", "A")],
        [(None, "A", "B"), (None, "B", "A")],
        [(None, "A", "B"), (None, "B", "C"), (None, "C", "A")],
        [("f", "A", "B"), (None, "B", "A")],
        [("f", "A", "B"), ("f", "C", "A"), (None, "B", "C")],
        [(None, "X", "A"), (None, "A", "B"), (None, "B", "A")],
    ],
)
def test_a_cycle_is_rejected_at_its_last_entry(session: Session, cycle: list[tuple[str | None, str, str]]) -> None:
    """In any order of its entries, across a flow's and the org's, in one statement or several."""
    *before, last = cycle
    for entry in before:
        session.execute(ADD, entry)
    with pytest.raises(CYCLE, match=r"cycle: .*A → "):
        session.execute(ADD, last)
    assert len(entries(session)) == len(before)
    session.execute("DELETE FROM flow_outcomes.outcome_alias")
    with pytest.raises(CYCLE):
        session.execute(
            "INSERT INTO flow_outcomes.outcome_alias (org, flow_id, old_name, new_name) SELECT 'acme', e.*"
            " FROM unnest(%s::text[], %s::text[], %s::text[]) AS e",
            [list(column) for column in zip(*cycle, strict=True)],
        )


def test_a_flows_entry_may_break_a_cycle(session: Session) -> None:
    """Entries that form a cycle for no flow are accepted, and removing the one that breaks it is rejected."""
    session.execute(ADD, ("f", "A", "B"))
    session.execute(ADD, ("f", "B", "C"))
    session.execute(ADD, (None, "B", "A"))
    with pytest.raises(CYCLE, match=r"B → A → B|A → B → A"):
        session.execute("DELETE FROM flow_outcomes.outcome_alias WHERE flow_id = 'f' AND old_name = 'B'")
    with pytest.raises(CYCLE):
        session.execute(
            "UPDATE flow_outcomes.outcome_alias SET flow_id = 'g' WHERE flow_id = 'f' AND old_name = 'B'"
        )
    with pytest.raises(CYCLE):
        session.execute(
            "UPDATE flow_outcomes.outcome_alias SET new_name = 'A' WHERE flow_id = 'f' AND old_name = 'B'"
        )
    assert len(entries(session)) == 3


@pytest.mark.parametrize(
    ("stored", "first", "second"),
    [
        ([], (ADD, (None, "A", "B")), (ADD, (None, "B", "A"))),
        ([(None, "X", "Y")], (ADD, (None, "A", "B")), (ADD, (None, "B", "A"))),
        ([], (ADD, ("f", "A", "B")), (ADD, (None, "B", "A"))),
        (
            [("f", "A", "B"), ("f", "B", "C")],
            (ADD, (None, "B", "A")),
            ("DELETE FROM flow_outcomes.outcome_alias WHERE flow_id = 'f' AND old_name = 'B'", None),
        ),
        (
            [("f", "A", "B"), ("f", "B", "C")],
            ("UPDATE flow_outcomes.outcome_alias SET new_name = 'D' WHERE old_name = 'A'", None),
            ("UPDATE flow_outcomes.outcome_alias SET new_name = 'A' WHERE old_name = 'B'", None),
        ),
        (
            [(None, "A", "B"), (None, "C", "D")],
            ("UPDATE flow_outcomes.outcome_alias SET new_name = 'C' WHERE old_name = 'A'", None),
            ("UPDATE flow_outcomes.outcome_alias SET new_name = 'A' WHERE old_name = 'C'", None),
        ),
    ],
)
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_of_two_concurrent_writers_that_would_close_a_cycle_one_is_rejected(
    session: Session,
    other: Session,
    database: str,
    stored: list[tuple[str | None, str, str]],
    first: tuple[str, Any],
    second: tuple[str, Any],
    level: str,
) -> None:
    """The second waits for the first, and then sees what it wrote."""
    for entry in stored:
        session.execute(ADD, entry)
    other.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
    other.execute("SELECT count(*) FROM flow_outcomes.outcome_alias")
    other.execute(first[0].encode(), first[1])
    outcome: list[BaseException | None] = []

    def write() -> None:
        try:
            with psycopg.connect(database) as late:
                late.execute(f"SET TRANSACTION ISOLATION LEVEL {level}".encode())
                late.execute("SELECT count(*) FROM flow_outcomes.outcome_alias")
                ready.set()
                late.execute(second[0].encode(), second[1])
        except psycopg.Error as error:
            outcome.append(error)
        else:
            outcome.append(None)

    ready = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    assert ready.wait(10)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while session.execute(waiting.encode()).fetchone() != (1,):
        assert writer.is_alive(), "the second writer did not wait"
    other.commit()
    writer.join(10)
    [error] = outcome
    broken = "the first statement is not part of a cycle" if "'D'" in first[0] else None
    if broken and level == "READ COMMITTED":
        assert error is None
    else:
        assert isinstance(error, (CYCLE, psycopg.errors.SerializationFailure))
    assert session.execute("SELECT flow_outcomes.alias_cycle('acme')").fetchone() == (None,)


def test_a_long_chain_is_resolved_and_its_cycle_found(session: Session) -> None:
    """In little time, whatever its length."""
    session.execute("SET statement_timeout = '10s'")
    session.execute(
        "INSERT INTO flow_outcomes.outcome_alias (org, old_name, new_name)"
        " SELECT 'acme', 'n' || n, 'n' || n + 1 FROM generate_series(1, 3000) AS n"
    )
    assert session.execute("SELECT flow_outcomes.resolve_alias('acme', 'f', 'n1')").fetchone() == ("n3001",)
    with pytest.raises(CYCLE):
        session.execute(ADD, (None, "n3001", "n1"))


@pytest.mark.parametrize(
    ("flow", "old", "new"),
    [(None, "", "B"), (None, "A", ""), ("", "A", "B"), (None, "é" * 257, "B"), (None, "A", "x" * 513)],
)
async def test_an_invalid_name_is_rejected(database: str, flow: str | None, old: str, new: str) -> None:
    """Empty, or longer than a stored name may be: it could exceed an index row, and block the org."""
    pool = Database(database, size=1, application_name="test")
    await pool.open()
    with pytest.raises(AliasError):
        await aliases.add(pool, Alias("acme", flow, old, new))
    assert await aliases.entries(pool, "acme") == []
    await pool.close()


def test_every_change_is_counted(session: Session) -> None:
    """A daemon notices insert, update, a move to another org, delete, and truncate."""

    def changes() -> dict[str, int]:
        return dict(session.execute("SELECT org, changes FROM flow_outcomes.alias_guard").fetchall())

    session.execute(ADD, (None, "A", "B"))
    assert changes() == {"acme": 1}
    session.execute("UPDATE flow_outcomes.outcome_alias SET org = 'zeta'")
    assert changes()["zeta"] == 1
    assert changes()["acme"] == 2
    before = changes()
    session.execute("DELETE FROM flow_outcomes.outcome_alias")
    assert changes()["zeta"] == before["zeta"] + 1
    before = changes()
    session.execute("TRUNCATE flow_outcomes.outcome_alias")
    assert all(changes()[org] == before[org] + 1 for org in before)


class Shell:
    """Runs commands on a database, and captures their output."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._config = config
        self._capsys = capsys
        self.errors = ""

    async def __call__(self, *argv: str) -> tuple[int, str]:
        command, *rest = argv
        action = [rest.pop(0)] if command == "alias" else []
        code = await asyncio.to_thread(main, [command, *action, "--config", str(self._config), *rest])
        out, self.errors = self._capsys.readouterr()
        return code, out


@pytest.fixture
def shell(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / "flow-outcomes.yaml"
    config.write_text(
        f"database: {{dsn: '{database}'}}\n"
        "orgs: {acme: {region: mypurecloud.com, client_id: a, client_secret: a-secret}}\n"
        "jobs: {daily: {since: 2024-01-01}}\n"
    )
    return Shell(config, capsys)


OF_ACME = ("--org", "acme")


async def test_an_alias_is_applied_at_once_and_removed_again(shell: Shell, session: Session) -> None:
    """Without a daemon: figures have the new name when the command ends, and the old one after its removal."""
    session.execute("INSERT INTO flow_outcomes.org (org) VALUES ('acme')")
    session.execute(
        "INSERT INTO flow_outcomes.series (org, flow_id, source_key, reported_name, outcome_name, revision)"
        " VALUES ('acme', 'f', 'Paid', 'Paid', 'Paid', 0)"
    )
    names = "SELECT outcome_name FROM flow_outcomes.series"
    code, out = await shell("alias", "add", *OF_ACME, "Paid", "Settled")
    assert (code, out) == (0, "Paid → Settled in all flows of acme\nrenamed 1 stored outcome\n")
    assert '"alias_applied"' in shell.errors
    assert session.execute(names).fetchall() == [("Settled",)]
    code, out = await shell("alias", "add", *OF_ACME, "Paid", "Done")
    assert out.startswith("Paid → Done in all flows of acme, replacing Settled\n")
    assert (await shell("alias", "remove", *OF_ACME, "Paid", "Settled"))[0] == 1
    assert "no alias from 'Paid' to 'Settled'" in shell.errors
    code, out = await shell("alias", "remove", *OF_ACME, "Paid")
    assert (code, out.splitlines()[0]) == (0, "removed: Paid → Done in all flows of acme")
    assert session.execute(names).fetchall() == [("Paid",)]


async def test_a_cycle_prints_one_line_and_exits_1(shell: Shell, session: Session) -> None:
    """The line shows the cycle, and nothing is written."""
    await shell("alias", "add", *OF_ACME, "A", "B")
    code, out = await shell("alias", "add", *OF_ACME, "--flow", "f", "B", "A")
    assert (code, out) == (1, "")
    assert shell.errors == "flow-outcomes: the aliases of org acme would form a cycle: A → B → A (flow f)\n"
    assert entries(session) == [(None, "A", "B")]


async def test_aliases_are_listed(shell: Shell) -> None:
    """As a table without control characters, or as one JSON document."""
    assert await shell("alias", "list", *OF_ACME) == (0, "acme has no aliases\n")
    await shell("alias", "add", *OF_ACME, "A", "B")
    await shell("alias", "add", *OF_ACME, "--flow", "f", "--", "-\x1b[2J[red]\u202e", "Bezahlt ✓ 已付")
    _, out = await shell("alias", "list", *OF_ACME, "--json")
    assert json.loads(out) == {
        "aliases": [
            {"org": "acme", "flow_id": None, "old_name": "A", "new_name": "B"},
            {"org": "acme", "flow_id": "f", "old_name": "-\x1b[2J[red]\u202e", "new_name": "Bezahlt ✓ 已付"},
        ]
    }
    _, out = await shell("alias", "list", *OF_ACME)
    assert [line.split() for line in out.splitlines()[1:]] == [
        ["all", "A", "B"],
        ["f", "-\\x1b[2J[red]\\u202e", "Bezahlt", "✓", "已付"],
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("add", "--org", "nobody", "A", "B"), "--org: no org 'nobody'"),
        (("add", *OF_ACME, "", "x" * 513), "OLD: is empty\nNEW: is longer than 512 bytes"),
        (("add", *OF_ACME, "\udcff", "B"), "OLD: is not valid UTF-8"),
        (("add", *OF_ACME, "--flow", "", "A", "B"), "--flow: is empty"),
    ],
)
async def test_each_usage_error_is_reported(shell: Shell, argv: tuple[str, ...], message: str) -> None:
    """Exit code 2, one line per error, and no traceback."""
    assert await shell("alias", *argv) == (2, "")
    assert shell.errors.startswith(message)


async def test_rejected_entries_are_listed_latest_first(shell: Shell, session: Session) -> None:
    """With window, flow, reason and the entry, which is cut in the table and complete in the JSON document."""
    session.execute(
        "INSERT INTO flow_outcomes.rejected_text (org, digest, entry) VALUES ('acme', 'd', %s)", ["[x]\x1b" * 99]
    )
    for ordinal, reason in enumerate(("older", "newer")):
        session.execute(
            "INSERT INTO flow_outcomes.rejected_outcome (org, window_start, window_end, digest, ordinal, reason,"
            " flow_id, bucket_start, outcome_name, rejected_at)"
            " VALUES ('acme', '2024-01-01Z', '2024-01-02Z', 'd', %s, %s, 'f', NULL, NULL, %s::timestamptz)",
            (ordinal, reason, f"2024-01-0{ordinal + 2}Z"),
        )
    code, out = await shell("rejected", *OF_ACME, "--limit", "1")
    assert code == 0
    assert "2024-01-01 00:00" in out
    assert "newer" in out
    assert "older" not in out
    assert "\x1b" not in out
    assert "1 of 2 rejected outcomes" in out
    _, out = await shell("rejected", "--json")
    document = json.loads(out)
    assert [each["reason"] for each in document["rejected"]] == ["newer", "older"]
    assert document["rejected"][0]["entry"] == "[x]\x1b" * 99

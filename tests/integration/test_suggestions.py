"""Suggested aliases: what is suggested, what is not, and the command that adds them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.cli import main
from service.postgres.pool import Database
from service.postgres.suggestions import record_new
from tests.support.planted_renames import Planted, evaluate, plant, store

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
END = datetime(2024, 6, 10, tzinfo=UTC)  # a Monday
WEEK = (115, 105, 100, 100, 95, 45, 25)
FLOW = "f"

Counts = Mapping[str, Callable[[int], int]]
"""A count by name and day; days are numbered back from 1, the last one stored."""

Session = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def session(database: str) -> Iterator[Session]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def weekday(back: int) -> int:
    """The level of a day in a usual week."""
    return WEEK[(END - back * DAY).weekday()]


def ends(level: Callable[[int], int], last: int) -> Callable[[int], int]:
    """A count up to the day ``last``, none later."""
    return lambda back: level(back) if back >= last else 0


def begins(level: Callable[[int], int], first: int) -> Callable[[int], int]:
    """A count from the day ``first``, none before."""
    return lambda back: level(back) if back <= first else 0


def days(counts: Counts, number: int = 40, flow: str = FLOW) -> Planted:
    """Daily figures; a day without a count has no row."""
    return Planted(
        [
            (flow, name, "daily", END - back * DAY, END - (back - 1) * DAY, count(back))
            for back in range(number, 0, -1)
            for name, count in {"Other": weekday, **counts}.items()
            if count(back)
        ]
    )


def renamed(last: int = 10, number: int = 40) -> Planted:
    """Daily figures with a rename at midnight."""
    return days({"Paid": ends(weekday, last), "Settled": begins(weekday, last - 1)}, number)


def suggested(session: Session, org: str = "acme") -> list[tuple[str, str]]:
    rows = session.execute(
        "SELECT old_name, new_name FROM flow_outcomes.alias_suggestion WHERE org = %s ORDER BY 1, 2", [org]
    ).fetchall()
    of_one = session.execute(
        "SELECT old_name, new_name FROM flow_outcomes.alias_suggestion_since(%s, NULL, '-infinity') ORDER BY 1, 2",
        [org],
    ).fetchall()
    assert rows == of_one
    return [(row[0], row[1]) for row in rows]


def test_planted_renames_are_found(database: str) -> None:
    """At least 95 % of them, with at most one false suggestion in 20: benchmarks/suggestions.py in short."""
    planted = found = wrong = 0
    for kind, seeds in (("daily", 16), ("short", 16), ("hourly", 4), ("monthly", 16), ("campaigns", 4)):
        orgs = {f"{kind}_{seed}": plant(kind, seed) for seed in range(7000, 7000 + seeds)}
        store(database, orgs)
        result = evaluate(database, orgs)
        assert result.found >= max(4, 0.9 * result.planted), (kind, result.missed)
        assert len(result.wrong) <= (result.found + len(result.wrong)) / 20, (kind, result.wrong)
        planted, found, wrong = planted + result.planted, found + result.found, wrong + len(result.wrong)
    assert found >= 0.95 * planted
    assert wrong <= (found + wrong) / 20


def test_the_evidence(session: Session, database: str) -> None:
    """The row has both names, when they were last and first seen, on how many days and how often."""
    store(database, {"acme": renamed(last=10)})
    session.execute("INSERT INTO flow_outcomes.flow (org, flow_id, name) VALUES ('acme', 'f', 'Sales')")
    with session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        [row] = cursor.execute("SELECT * FROM flow_outcomes.alias_suggestion").fetchall()
    assert row.pop("confidence") > 0.9
    assert row.pop("ratio") == pytest.approx(1, abs=0.01)
    assert row.pop("mean_before") == pytest.approx(sum(weekday(back) for back in range(10, 39)) / 29, abs=1)
    assert row.pop("mean_after") == pytest.approx(sum(weekday(back) for back in range(1, 10)) / 9, abs=1)
    assert row == {
        "org": "acme",
        "flow_id": "f",
        "flow_name": "Sales",
        "old_name": "Paid",
        "new_name": "Settled",
        "granularity": "daily",
        "last_seen": END - 10 * DAY,
        "first_seen": END - 9 * DAY,
        "days_before": 29,
        "days_after": 9,
    }


SMALL_AND_LARGE = (lambda _: 10, lambda _: 60)


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param({"Paid": ends(weekday, 10)}, id="one ends"),
        pytest.param({"Settled": begins(weekday, 9)}, id="one begins"),
        pytest.param({"Paid": ends(weekday, 6), "Settled": begins(weekday, 12)}, id="both for a week"),
        pytest.param({"Paid": ends(weekday, 9), "Settled": begins(weekday, 11)}, id="both for three days"),
        pytest.param({"Paid": ends(weekday, 20), "Settled": begins(weekday, 12)}, id="a week lies between"),
        pytest.param({"Paid": ends(SMALL_AND_LARGE[0], 10), "Settled": begins(SMALL_AND_LARGE[1], 9)}, id="level"),
        pytest.param(
            {
                "Paid": ends(lambda back: 70 if weekday(back) > 50 else 0, 14),
                "Settled": begins(lambda back: 20 if weekday(back) > 50 else 175, 13),
            },
            id="one on workdays, the other on weekends",
        ),
        pytest.param({"Paid": ends(weekday, 2), "Settled": begins(weekday, 1)}, id="yesterday"),
        pytest.param(
            {"Paid": ends(lambda back: 10**15 if back == 10 else 10, 10), "Settled": begins(lambda _: 10, 10)},
            id="one day is large",
        ),
        pytest.param({"Paid": ends(weekday, 39), "Settled": begins(weekday, 38)}, id="the first two days"),
        pytest.param(
            {"Paid": lambda back: weekday(back) if back > 12 or back < 8 else 0, "Settled": begins(weekday, 12)},
            id="it came back",
        ),
        pytest.param(
            {
                "Paid": ends(lambda back: 2 * int(back % 3 == 1), 7),
                "Settled": begins(lambda back: 1 + back % 2 if back in (6, 4, 3, 1) else 0, 6),
            },
            id="rare",
        ),
    ],
)
def test_no_rename(session: Session, database: str, counts: Counts) -> None:
    """What is no rename, or not yet evident as one, is not suggested."""
    store(database, {"acme": days(counts)})
    assert suggested(session) == []


@pytest.mark.parametrize(
    ("counts", "number"),
    [
        pytest.param({"Paid": ends(weekday, 4), "Settled": begins(weekday, 3)}, 7, id="three days and four"),
        pytest.param({"Paid": ends(weekday, 10), "Settled": begins(weekday, 10)}, 40, id="at noon"),
        pytest.param(
            {"Paid": ends(lambda back: 2 if back == 9 else 100, 9), "Settled": begins(lambda _: 100, 10)},
            40,
            id="executions across midnight",
        ),
        pytest.param({"Paid": ends(weekday, 10), "Settled": begins(weekday, 7)}, 40, id="two days between"),
        pytest.param(
            {
                "Paid": ends(lambda back: 80 if weekday(back) > 50 else 0, 10),
                "Settled": begins(lambda back: 80 if weekday(back) > 50 else 0, 7),
            },
            40,
            id="over a weekend",
        ),
        pytest.param(
            {"Paid": ends(lambda b: 3 - b % 3, 10), "Settled": begins(lambda b: 3 - b % 3, 9)}, 40, id="few"
        ),
    ],
)
def test_a_rename(session: Session, database: str, counts: Counts, number: int) -> None:
    """A rename is suggested from three days with each name on."""
    store(database, {"acme": days(counts, number)})
    assert suggested(session) == [("Paid", "Settled")]


def test_renames_on_one_day(session: Session, database: str) -> None:
    """Levels tell which name became which; where they do not, none is suggested."""
    levels = {"A": 20, "B": 60, "C": 180}
    counts: dict[str, Callable[[int], int]] = {}
    for name, level in levels.items():
        counts[name] = ends(lambda _, level=level: level, 10)  # type: ignore[misc]
        counts[f"new {name}"] = begins(lambda _, level=level: level, 9)  # type: ignore[misc]
    store(database, {"acme": days(counts)})
    assert suggested(session) == [(name, f"new {name}") for name in levels]
    alike = {"A": ends(weekday, 10), "B": ends(weekday, 10), "C": begins(weekday, 9), "D": begins(weekday, 9)}
    store(database, {"globex": days(alike)})
    assert suggested(session, "globex") == []


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        (("acme", "f", "Paid", "Settled"), []),
        (("acme", None, "Paid", "Settled"), []),
        (("acme", None, "Settled", "Paid"), []),
        (("acme", None, "Paid", "Money"), []),
        (("acme", None, "Settled", "Money"), []),
        (("acme", "other", "Paid", "Settled"), [("Paid", "Settled")]),
        (("globex", None, "Paid", "Settled"), [("Paid", "Settled")]),
    ],
)
def test_an_alias_that_exists(
    session: Session, database: str, alias: tuple[str | None, ...], expected: list[tuple[str, str]]
) -> None:
    """A name that an alias maps is not suggested, whether the alias was applied or not."""
    store(database, {"acme": renamed()})
    session.execute("INSERT INTO flow_outcomes.outcome_alias VALUES (%s, %s, %s, %s)", alias)
    assert suggested(session) == expected


def test_a_chain(session: Session, database: str) -> None:
    """A name that was renamed twice gives two suggestions; after an alias for the first the second remains."""
    counts = {
        "A": ends(weekday, 40),
        "B": lambda back: weekday(back) if 20 <= back < 40 else 0,
        "C": begins(weekday, 19),
    }
    store(database, {"acme": days(counts, 60)})
    assert suggested(session) == [("A", "B"), ("B", "C")]
    session.execute("INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'A', 'B')")
    session.execute("UPDATE flow_outcomes.series SET outcome_name = 'B' WHERE reported_name = 'A'")
    assert suggested(session) == [("B", "C")]


def test_an_outcome_with_an_id(session: Session, database: str) -> None:
    """Two ids are two outcomes, however well they fit."""
    store(database, {"acme": renamed()})
    session.execute("UPDATE flow_outcomes.series SET outcome_id = source_key")
    assert suggested(session) == []


def test_expected_nulls_are_no_figures(session: Session, database: str) -> None:
    """The nulls after an outcome's end do not prolong it."""
    store(database, {"acme": renamed()})
    session.execute(
        "INSERT INTO flow_outcomes.figure (org, granularity, series_no, bucket_start, bucket_end, state,"
        " extraction_timestamp, revision) SELECT 'acme', 'daily', series_no, d, d + interval '1 day', 'expected',"
        " now(), 1 FROM flow_outcomes.series, generate_series(%s, %s, interval '1 day') d"
        " WHERE reported_name = 'Paid'",
        [END - 9 * DAY, END - DAY],
    )
    assert suggested(session) == [("Paid", "Settled")]


async def test_each_pair_is_recorded_once(session: Session, database: str) -> None:
    """Of recent figures; a pair that was logged is not logged again."""
    store(database, {"acme": renamed()})
    pool = Database(database, size=2, application_name="test")
    await pool.open()
    try:
        assert await record_new(pool, "acme") == []
        session.execute("SELECT flow_outcomes.ensure_partitions(now() - interval '60 days', now())")
        age = "make_interval(days => (now()::date - %s::date))"
        for column in ("bucket_end = bucket_end", "bucket_start = bucket_start"):
            session.execute(f"UPDATE flow_outcomes.figure SET {column} + {age}".encode(), [END])
        session.execute(
            f"UPDATE flow_outcomes.bucket_coverage SET bucket_end = bucket_end + {age}, bucket_start ="
            f" bucket_start + {age}".encode(),
            [END, END],
        )
        [found] = await record_new(pool, "acme")
        assert (found.old_name, found.new_name) == ("Paid", "Settled")
        assert await record_new(pool, "acme") == []
    finally:
        await pool.close()


def configure(folder: Path, dsn: str) -> Path:
    file = folder / "a config.yaml"
    org = {"region": "mypurecloud.com", "client_id": "a", "client_secret": "a-secret"}
    file.write_text(
        json.dumps({"database": {"dsn": dsn}, "orgs": {"acme": org, "globex": org | {"api": "flow-aggregates"}}})
    )
    return file


HOSTILE = [
    "--org",
    'it\'s $(id) `id` \\ "x" ; rm *',
    *("a\nb\tc\x1b[31m", "Cafe\u0301", "Café", "👩\u200d👧\u202e"),
]


@pytest.mark.parametrize("style", ["json", "text"])
def test_the_command_adds_the_alias(
    session: Session, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], style: str
) -> None:
    """The printed command works in a shell as it is, whatever is in the names, the flow and the file's name."""
    config = configure(tmp_path, database)
    pairs = {
        f"-{place} {old}": (old, new)
        for place, (old, new) in enumerate(zip(HOSTILE, [*HOSTILE[1:], HOSTILE[0]], strict=True))
    }
    planted = Planted()
    for flow, (old, new) in pairs.items():
        planted.rows += days({old: ends(weekday, 10), new: begins(weekday, 9)}, flow=flow).rows
    store(database, {"acme": planted})
    json_option = ["--json"] if style == "json" else []
    assert main(["alias", "suggest", "--org", "acme", "--config", str(config), *json_option]) == 0
    out = capsys.readouterr().out
    if style == "json":
        found = json.loads(out)["suggestions"]
        assert {each["flow_id"]: (each["old_name"], each["new_name"]) for each in found} == pairs
        commands, shell = [each["command"] for each in found], "sh"
    else:
        assert all(line.isprintable() for line in out.splitlines())
        assert "Cafe\\u0301" not in out  # combining characters are printed as they are
        commands = [line.partition("to add it ")[2] for line in out.splitlines() if "to add it " in line]
        shell = "bash"
    assert len(commands) == len(pairs)
    for command in commands:
        ended = subprocess.run(
            [shell, "-c", command],
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, (command, ended.stderr)
    added = session.execute("SELECT flow_id, old_name, new_name FROM flow_outcomes.outcome_alias").fetchall()
    assert {row[0]: (row[1], row[2]) for row in added} == pairs
    assert main(["alias", "suggest", "--org", "acme", "--config", str(config)]) == 0
    assert capsys.readouterr().out == "no aliases to suggest in acme\n"


def test_the_command_line(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One flow, an org without suggestions, one whose API has ids, and what is invalid."""
    config = ["--config", str(configure(tmp_path, database))]
    store(database, {"acme": Planted([*renamed().rows, *days({}, flow="g").rows])})
    for flow, expected in (("f", 1), ("g", 0), ("unknown", 0)):
        assert main(["alias", "suggest", "--org", "acme", "--flow", flow, "--json", *config]) == 0
        document = json.loads(capsys.readouterr().out)
        assert len(document["suggestions"]) == expected
    assert main(["alias", "suggest", "--org", "acme", *config]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Paid -> Settled\n")
    assert f"--config={shlex.quote(config[1])}" not in text  # quoted as one word
    assert shlex.quote(f"--config={config[1]}") in text
    assert main(["alias", "suggest", "--org", "globex", *config]) == 0
    assert "identifies outcomes by id" in capsys.readouterr().out
    assert main(["alias", "suggest", "--org", "acm", *config]) == 2
    assert "did you mean acme?" in capsys.readouterr().err

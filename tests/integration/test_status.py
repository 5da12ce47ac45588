"""The status document for a ledger in every state."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from service.cli import main
from service.config import Config, config_from
from service.errors import DatabaseUnavailableError, SchemaError
from service.postgres.lease import note_breaker
from service.postgres.pool import Database
from service.postgres.probe import open_connection, readiness_problem
from service.status.status import JobStatus, Status, read_status

NOW = datetime(2024, 1, 11, 12, tzinfo=UTC)
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def config(**changes: object) -> Config:
    """Two orgs and a job for both; its ten days are all due."""
    org = {"region": "mypurecloud.com", "client_id": "id", "client_secret": "not-a-secret"}
    job = {"since": "2024-01-01", "off_peak": None} | changes
    document = {
        "database": {"dsn": "postgresql://127.0.0.1/none"},
        "orgs": {"acme": org, "globex": org | {"timezone": "Europe/Berlin"}},
        "jobs": {"daily": job},
    }
    return config_from(document)


class Ledger:
    """Writes rows of the ledger as a daemon leaves them."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def write(self, days: Iterable[int], state: str, error: str | None = None, **more: object) -> None:
        columns = {
            "org": "acme",
            "work": "job:daily",
            "job": "daily",
            "requested_granularity": "daily",
            "granularity": "daily",
            "state": state,
            "last_error": error,
            "due_at": FIRST,
        } | more
        with psycopg.connect(self.dsn) as connection:
            for day in days:
                start = FIRST + day * DAY
                values = {"window_start": start, "window_end": start + DAY} | columns
                names = ", ".join(values)
                marks = ", ".join(f"%({name})s" for name in values)
                connection.execute(
                    f"INSERT INTO flow_outcomes.extraction_window ({names}) VALUES ({marks})".encode(), values
                )

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement.encode())

    async def status(self, config: Config, now: datetime = NOW) -> Status:
        async with open_connection(self.dsn, "test", timeout=10) as connection:
            return await read_status(connection, config, now)

    async def daily(self, config: Config, now: datetime = NOW, org: str = "acme") -> JobStatus:
        return (await self.status(config, now))["orgs"][org]["jobs"]["daily"]


@pytest.fixture
def written(database: str) -> Ledger:
    return Ledger(database)


def days(job: JobStatus) -> list[str]:
    return [gap["window_start"][:10] for gap in job["gaps"]]


async def test_before_the_first_run(written: Ledger) -> None:
    """Before the first cycle every configured org and job is listed, with each due window as a gap."""
    found = await written.status(config())
    assert list(found["orgs"]) == ["acme", "globex"]
    for org in found["orgs"].values():
        job = org["jobs"]["daily"]
        assert (org["breaker"], org["owner"], job["newest_complete"]) == ("closed", None, None)
        assert job["windows"] == {"complete": 0, "pending": 10, "running": 0, "failed": 0}
        assert len(job["gaps"]) == 10
        assert {gap["state"] for gap in job["gaps"]} == {"pending"}
        assert all(gap["reason"] for gap in job["gaps"])


async def test_no_gaps(written: Ledger) -> None:
    """There are no gaps when every due window is complete."""
    written.write(range(10), "complete")
    job = await written.daily(config())
    assert job["gaps"] == []
    assert job["windows"] == {"complete": 10, "pending": 0, "running": 0, "failed": 0}
    assert job["newest_complete"] == "2024-01-11T00:00:00.000Z"


async def test_each_state_is_a_gap_with_its_reason(written: Ledger) -> None:
    """Failed, running and pending windows are gaps, and so is a due one that is not in the ledger."""
    written.write([0, 1, 2, 3, 4, 8], "complete")
    written.write([5], "failed", "HTTP 403 Forbidden")
    written.write([6], "running")
    written.write([7], "pending", "the breaker is open")
    job = await written.daily(config())
    assert [(gap["window_start"][8:10], gap["state"]) for gap in job["gaps"]] == [
        ("06", "failed"),
        ("07", "running"),
        ("08", "pending"),
        ("10", "pending"),
    ]
    assert [gap["reason"] for gap in job["gaps"]][::2] == ["HTTP 403 Forbidden", "the breaker is open"]
    assert job["windows"] == {"complete": 6, "pending": 2, "running": 1, "failed": 1}
    assert job["newest_complete"] == "2024-01-10T00:00:00.000Z"


async def test_a_window_that_is_not_due_yet_is_no_gap(written: Ledger) -> None:
    """A window that waits for the off-peak hours is pending, and no gap."""
    written.write(range(9), "complete")
    off_peak = config(off_peak="02:00-05:00")
    before = await written.daily(off_peak, datetime(2024, 1, 11, 1, 30, tzinfo=UTC))
    after = await written.daily(off_peak, datetime(2024, 1, 11, 2, tzinfo=UTC))
    assert (days(before), before["windows"]["pending"]) == ([], 1)
    assert (days(after), after["windows"]["pending"]) == (["2024-01-10"], 1)


async def test_rows_of_an_earlier_configuration(written: Ledger) -> None:
    """A gap is found where the number of rows is right only because of rows of an earlier configuration."""
    written.write([0, 1, 2, 3, 4, 5, 6, 7, 9], "complete")
    written.write([0], "complete", window_start=FIRST, window_end=FIRST + timedelta(hours=1))
    written.write([8], "complete", requested_granularity="hourly")
    written.write([-3], "failed", "of an earlier since")
    job = await written.daily(config())
    assert days(job) == ["2024-01-09"]
    assert job["windows"]["failed"] == 0


async def test_days_of_the_orgs_time_zone(written: Ledger) -> None:
    """The gaps of an org are days of its own time zone."""
    job = await written.daily(config(), org="globex")
    assert job["gaps"][0]["window_start"] == "2023-12-31T23:00:00.000Z"


async def test_the_owner_and_its_breaker(written: Ledger) -> None:
    """The stored breaker counts while its owner holds the org, and after that until it would have closed."""
    written.execute(
        "INSERT INTO flow_outcomes.org_lease (org, owner, owned_since, expires_at, paused_until)"
        " VALUES ('acme', 'me', now(), now() + interval '15 s', now() + interval '1 min')"
    )
    async with pool(written.dsn) as database:
        await note_breaker(database, "acme", "me", "open", 30.0)
        await note_breaker(database, "acme", "another", "closed", None)
        acme = (await written.status(config()))["orgs"]["acme"]
        assert (acme["owner"], acme["breaker"]) == ("me", "open")
        assert acme["jobs"]["daily"]["gaps"][0]["reason"] == ("not yet requested: the org's breaker is open")
        assert acme["breaker_until"]
        assert 50 < acme["paused_for"] <= 60
        written.execute("UPDATE flow_outcomes.org_lease SET expires_at = now() - interval '1 s'")
        acme = (await written.status(config()))["orgs"]["acme"]
        assert (acme["owner"], acme["breaker"]) == (None, "open")
        await note_breaker(database, "acme", "me", "half-open", None)
        acme = (await written.status(config()))["orgs"]["acme"]
        assert (acme["breaker"], acme["breaker_until"]) == ("closed", None)


async def test_ad_hoc_windows(written: Ledger) -> None:
    """Ad hoc windows are counted apart from those of jobs, and one that was requested again is pending."""
    ad_hoc = {"work": "ad hoc", "job": None}
    written.write([0], "complete", requests=1, requests_read=1, **ad_hoc)
    written.write([1], "complete", requests=2, requests_read=1, **ad_hoc)
    written.write([2], "failed", "too large", **ad_hoc)
    found = (await written.status(config()))["orgs"]["acme"]["ad_hoc"]
    assert found["windows"] == {"complete": 1, "pending": 1, "running": 0, "failed": 1}
    assert [gap["reason"] for gap in found["gaps"]] == ["too large"]


async def test_a_complete_window_with_an_error(written: Ledger) -> None:
    """A later scan that failed leaves the window complete and is listed in ``last_errors``."""
    written.write(range(9), "complete")
    written.write([9], "complete", "the scan was completely empty")
    acme = (await written.status(config()))["orgs"]["acme"]
    assert acme["jobs"]["daily"]["gaps"] == []
    assert acme["jobs"]["daily"]["complete_with_error"] == 1
    assert [each["reason"] for each in acme["last_errors"]] == ["the scan was completely empty"]


async def test_readiness_tests_a_write(written: Ledger, empty_database: str) -> None:
    """A database that accepts no writes or lacks the schema is not ready; the test writes nothing for good."""
    async with open_connection(written.dsn, "test", timeout=10, read_only=False) as connection:
        assert await readiness_problem(connection) is None
        cursor = await connection.execute("SELECT count(*) FROM flow_outcomes.org")
        assert await cursor.fetchone() == (0,)
        await connection.execute("SET default_transaction_read_only = on")
        assert "no writes" in (await readiness_problem(connection) or "")
    async with open_connection(empty_database, "test", timeout=10, read_only=False) as connection:
        assert "flow-outcomes migrate" in (await readiness_problem(connection) or "")


async def test_errors_of_the_database(empty_database: str) -> None:
    """A missing schema and an unreachable server are different errors."""
    with pytest.raises(SchemaError, match="flow-outcomes migrate"):
        await Ledger(empty_database).status(config())
    with pytest.raises(DatabaseUnavailableError, match="refused"):
        await Ledger("postgresql://127.0.0.1:1/none").status(config())


def file(folder: Path, dsn: str) -> str:
    path = folder / "flow-outcomes.yaml"
    path.write_text(
        f"database: {{dsn: '{dsn}'}}\n"
        "orgs: {acme: {region: mypurecloud.com, client_id: id, client_secret: not-a-secret}}\n"
        "jobs: {daily: {since: P5D, off_peak: null}}\n"
    )
    return str(path)


def test_the_command(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--json`` prints one document and nothing else; neither output interprets markup or control characters."""
    now = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    Ledger(database).write([(now - FIRST).days - 2], "failed", "[bold]\x1b[31m red\u202e", due_at=now)
    assert main(["status", "--config", file(tmp_path, database), "--json"]) == 0
    printed = capsys.readouterr()
    assert [gap["state"] for gap in json.loads(printed.out)["orgs"]["acme"]["jobs"]["daily"]["gaps"]].count(
        "failed"
    ) == 1
    assert printed.err == ""
    assert main(["status", "--config", file(tmp_path, database)]) == 0
    shown = capsys.readouterr().out
    assert "[bold]\\x1b[31m red\\u202e" in shown
    assert "no daemon currently holds this org" in shown


def test_a_role_that_may_only_read(database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``status`` needs no more than SELECT, and reports a role that lacks it in one line."""
    name = database.rpartition("/")[2]
    Ledger(database).execute(f"CREATE ROLE reader_{name} LOGIN PASSWORD 'reader'")
    host = database.rpartition("@")[2]
    reader = f"postgresql://reader_{name}:reader@{host}"
    try:
        assert main(["status", "--config", file(tmp_path, reader)]) == 1
        assert "grant the role" in capsys.readouterr().err
        Ledger(database).execute(
            f"GRANT USAGE ON SCHEMA flow_outcomes TO reader_{name};"
            f"GRANT SELECT ON ALL TABLES IN SCHEMA flow_outcomes TO reader_{name}"
        )
        assert main(["status", "--config", file(tmp_path, reader)]) == 0
    finally:
        Ledger(database).execute(f"DROP OWNED BY reader_{name}; DROP ROLE reader_{name}")


def test_the_command_without_a_status(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the status cannot be read, the command prints one line and exits with 1."""
    for dsn, word in ((empty_database, "flow-outcomes migrate"), ("postgresql://127.0.0.1:1/none", "refused")):
        assert main(["status", "--config", file(tmp_path, dsn), "--json"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert word in printed.err
        assert printed.err.count("\n") == 1


@asynccontextmanager
async def pool(dsn: str) -> AsyncIterator[Database]:
    database = Database(dsn, size=2, application_name="test")
    await database.open()
    try:
        yield database
    finally:
        await database.close()

"""The privileges of the database roles, and where a secret may appear."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from service.postgres.migrate import migrate
from service.runtime.preflight import database_findings, inspect_database
from service.simulator import Fault, Faults, SimulatedOrg, Simulator, SimulatorConfig
from tests.faults.test_database import SLOW, source
from tests.support.daemon import Daemon, assert_exact, wait_until_complete
from tests.support.fault_harness import FaultHarness
from tests.support.program import SECRET, Program

pytestmark = pytest.mark.acceptance

ROLES = Path(__file__).parents[2] / "config" / "roles.sql"
SQL_BLOCKS = re.findall(r"```sql\n(.*?)```", (ROLES.parents[1] / "docs" / "operating.md").read_text(), re.DOTALL)
ROLE_NAMES = ("owner", "daemon", "reader")


@pytest.fixture
def roles(empty_database: str) -> Iterator[dict[str, str]]:
    """The DSN of each role that the script creates, in an empty database."""
    given = conninfo_to_dict(empty_database)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
        for role in ROLE_NAMES:
            connection.execute(f"ALTER ROLE flow_outcomes_{role} PASSWORD 'pw'".encode())
        yield {
            role: f"postgresql://flow_outcomes_{role}:pw@{given['host']}:{given['port']}/{given['dbname']}"
            for role in ROLE_NAMES
        } | {"superuser": empty_database}
        for role in ROLE_NAMES:
            connection.execute(f"DROP OWNED BY flow_outcomes_{role} CASCADE".encode())
        for role in ROLE_NAMES:
            connection.execute(f"DROP ROLE flow_outcomes_{role}".encode())


@pytest.mark.short
async def test_the_roles_suffice_and_allow_no_more(tmp_path: Path, roles: dict[str, str]) -> None:
    """The daemon's role can run but not change the schema; the reader's can read the public relations alone."""
    async with (
        Program(tmp_path, roles["owner"]) as program,
        source(SimulatedOrg(requests_per_second=None)) as simulator,
    ):
        program.configure(simulator, jobs={"daily": {"since": "P5D", "off_peak": None, "granularity": "daily"}})
        ended = await program.run("migrate")
        assert (ended.code, ended.err) == (0, "")
        with psycopg.connect(roles["superuser"], autocommit=True) as connection:
            connection.execute(ROLES.read_bytes())
        program.dsn = roles["daemon"]
        program.configure(
            simulator, jobs={"daily": {"since": "P5D", "off_peak": None, "granularity": "daily"}}, http={"port": 0}
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (0, ""), ended
        daemon = await Daemon.start(program)
        await daemon.wait_until_ready()
        await daemon.end()
        ended = await program.run("alias", "add", "--org", "acme", "Abandoned", "Hung up")
        assert ended.code == 0, ended
        ended = await program.run("status", "--json")
        assert (ended.code, ended.err) == (0, "")
        program.configure(simulator, export={"warehouse": f"file://{tmp_path}/warehouse"})
        for written in (True, False):
            ended = await program.run("export")
            assert (ended.code, ended.err) == (0, "")
            assert ("nothing new" in ended.out) is not written
    rejected(
        roles["daemon"],
        "CREATE TABLE flow_outcomes.mine ()",
        "DROP TABLE flow_outcomes.outcome_alias",
        "DROP TABLE flow_outcomes.iceberg_tables",
        "ALTER TABLE flow_outcomes.org ADD COLUMN mine int",
        "TRUNCATE flow_outcomes.outcome_alias",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "DELETE FROM flow_outcomes._yoyo_migration",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
    )
    rejected(
        roles["reader"],
        "DELETE FROM flow_outcomes.figure",
        "UPDATE flow_outcomes.extraction_window SET state = 'complete'",
        "INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'a', 'b')",
        "SELECT * FROM flow_outcomes.rejected_entry",
        "SELECT * FROM flow_outcomes.org_lease",
        "UPDATE flow_outcomes.iceberg_tables SET metadata_location = ''",
        "SELECT flow_outcomes.create_iceberg_catalog()",
        "SELECT flow_outcomes.ensure_partitions(now(), now())",
        "SELECT flow_outcomes.analyze_series()",
    )
    with psycopg.connect(roles["reader"]) as connection:
        for relation in (
            "flow_outcome",
            "flow_outcome_as_of(now())",
            "flow_outcome_detail",
            "flow_outcome_detail_as_of(now())",
            "flow_execution",
            "flow_execution_as_of(now())",
            "flow_milestone",
            "flow_milestone_as_of(now())",
            "alias_suggestion",
            "coverage",
            "restatement",
            "extraction_window",
            "outcome_alias",
            "flow",
            "iceberg_tables",
            "iceberg_namespace_properties",
        ):
            connection.execute(f"SELECT * FROM flow_outcomes.{relation}".encode())
        row = connection.execute("SELECT count(*) > 0 FROM flow_outcomes.flow_outcome").fetchone()
        assert row == (True,)


# A right that a merge needs, what takes it away, what gives it back, and PostgreSQL's words.
RIGHTS = [
    (
        "REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC, flow_outcomes_daemon",
        "GRANT TEMPORARY ON DATABASE {database} TO flow_outcomes_daemon",
        "permission denied to create temporary tables",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION flow_outcomes.ensure_partitions FROM PUBLIC, flow_outcomes_daemon",
        "GRANT EXECUTE ON FUNCTION flow_outcomes.ensure_partitions TO flow_outcomes_daemon",
        "permission denied for function ensure_partitions",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION flow_outcomes.resolve_alias FROM PUBLIC, flow_outcomes_daemon",
        "GRANT EXECUTE ON FUNCTION flow_outcomes.resolve_alias TO flow_outcomes_daemon",
        "permission denied for function resolve_alias",
    ),
    (
        "REVOKE USAGE ON TYPE flow_outcomes.figure_state FROM PUBLIC, flow_outcomes_daemon",
        "GRANT USAGE ON TYPE flow_outcomes.figure_state TO flow_outcomes_daemon",
        "permission denied for type flow_outcomes.figure_state",
    ),
    (
        "ALTER TABLE flow_outcomes.figure OWNER TO {superuser}",
        "ALTER TABLE flow_outcomes.figure OWNER TO flow_outcomes_owner",
        "permission denied for table figure",
    ),
    (
        "ALTER TABLE flow_outcomes.restated ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE flow_outcomes.restated DISABLE ROW LEVEL SECURITY",
        "row-level security policy for table",
    ),
]


@pytest.mark.short
async def test_check_finds_every_right_that_a_merge_needs(roles: dict[str, str]) -> None:
    """A merge that is rolled back fails with PostgreSQL's words, and leaves nothing where it passes."""
    migrate(roles["owner"])
    with psycopg.connect(roles["superuser"], autocommit=True) as connection:
        connection.execute(ROLES.read_bytes())
        names = {"database": connection.info.dbname, "superuser": connection.info.user}
        for revoke, grant, words in RIGHTS:
            connection.execute(revoke.format(**names).encode())
            facts = await inspect_database(roles["daemon"])
            assert words in facts.merge_problem, revoke
            [finding] = database_findings(facts)
            assert (finding.ok, "config/roles.sql" in finding.fix) == (False, True)
            connection.execute(grant.format(**names).encode())
            assert (await inspect_database(roles["daemon"])).merge_problem == "", grant
        left = "SELECT (SELECT count(*) FROM flow_outcomes.org) + (SELECT count(*) FROM flow_outcomes.figure)"
        assert connection.execute(left.encode()).fetchone() == (0,)
        assert connection.execute("SELECT to_regclass('flow_outcomes.figure_y1999m01')").fetchone() == (None,)


@pytest.mark.short
async def test_the_privileges_of_the_documents_suffice(roles: dict[str, str]) -> None:
    """Where PUBLIC has no right at all, docs/operating.md gives a role what a merge needs."""
    migrate(roles["owner"])
    with psycopg.connect(roles["superuser"], autocommit=True) as connection:
        database = connection.info.dbname
        connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC, flow_outcomes_daemon".encode())
        for kind in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            revoke = f"REVOKE ALL ON ALL {kind} IN SCHEMA flow_outcomes FROM PUBLIC, flow_outcomes_daemon"
            connection.execute(revoke.encode())
        connection.execute("REVOKE ALL ON TYPE flow_outcomes.figure_state, flow_outcomes.measure FROM PUBLIC")
        [grants] = [block for block in SQL_BLOCKS if "GRANT CONNECT, TEMPORARY" in block]
        grants = grants.replace("outcomes;", "flow_outcomes_daemon;").replace(
            "DATABASE reports", f"DATABASE {database}"
        )
        connection.execute(grants.replace("TO outcomes", "TO flow_outcomes_daemon").encode())
        connection.execute("GRANT SELECT ON flow_outcomes._yoyo_migration TO flow_outcomes_daemon")
    facts = await inspect_database(roles["daemon"])
    assert (facts.missing_privileges, facts.merge_problem) == ([], "")


def rejected(dsn: str, *statements: str) -> None:
    """The role lacks the privilege for each statement."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.short
async def test_a_secret_is_found_nowhere(site: FaultHarness, tmp_path: Path) -> None:
    """Errors that repeat the secret leave it out of the log, metrics, status, page, tables and process list."""
    faults = Faults(
        hostile_error=Fault(request=1, value=400), token_hostile=Fault(request=1), unauthorized=Fault(request=3)
    )
    org = SimulatedOrg(requests_per_second=None, client_secret=SECRET, faults=faults)
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        job = {"daily": {**site.job, "retry_every": "PT1S"}}
        site.configure(simulator, jobs=job, log={"level": "debug"})
        tree = yaml.safe_load(site.program.config.read_text())
        del tree["orgs"]["acme"]["client_secret"]
        tree["orgs"]["acme"]["client_secret_file"] = str(secret)
        site.program.config.write_text(yaml.safe_dump(tree))
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("window_failed")
        await wait_until_complete(daemon, 10)
        fired = simulator.orgs["acme"].fired
        assert all(fired[name] for name in ("hostile_error", "token_hostile", "unauthorized")), fired
        answers = [(await daemon.get(path))[1] for path in ("/metrics", "/api/status", "/readyz", "/")]
        process = Path(f"/proc/{daemon.pid}")
        shown = [(process / "cmdline").read_bytes().decode(), (process / "environ").read_bytes().decode()]
        assert (process / "environ").stat().st_mode & 0o077 == 0  # only its user may read the environment
        await daemon.end()
        tokens = simulator.tokens_issued
        assert tokens > 0
        tables = site.run(
            "SELECT string_agg(t::text, ' ') FROM ("
            + " UNION ALL ".join(
                f"SELECT x::text AS t FROM flow_outcomes.{table} x"
                for (table,) in site.run(
                    "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE nspname = 'flow_outcomes' AND relkind IN ('r', 'p', 'v')"
                )
            )
            + ") t"
        )
        log = "".join([*daemon.running.out, *daemon.running.err])
        assert len(log) > 1000
        basic = base64.b64encode(f"acme:{SECRET}".encode()).decode().rstrip("=")
        password = str(conninfo_to_dict(site.dsn)["password"])
        for text in (log, *answers, *shown, str(tables)):
            for form in (SECRET, basic, password):
                assert form not in text


@pytest.mark.short
async def test_a_secret_file_is_read_again(site: FaultHarness, tmp_path: Path) -> None:
    """A rotated secret is used at the next renewal of the token; until then the windows fail."""
    secret = tmp_path / "secret"
    secret.write_text("wrong-secret")
    async with source(SLOW) as simulator:
        site.configure(simulator, jobs={"daily": {**site.job, "retry_every": "PT1S"}})
        tree = yaml.safe_load(site.program.config.read_text())
        right = tree["orgs"]["acme"].pop("client_secret")
        tree["orgs"]["acme"]["client_secret_file"] = str(secret)
        site.program.config.write_text(yaml.safe_dump(tree))
        daemon = await Daemon.start(site.program)
        await daemon.wait_for_event("window_failed")
        assert not site.run("SELECT 1 FROM flow_outcomes.figure LIMIT 1")
        secret.write_text(right)
        await wait_until_complete(daemon, 15)
        assert_exact(site.program, simulator)
        await daemon.end()

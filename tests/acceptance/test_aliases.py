"""Aliases that were edited with SQL while no process ran, and in a database that is replicated."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import Program

BACKFILL = ("backfill", "--org", "acme", "--from", "2024-01-01", "--to", "2024-01-03", "--granularity", "daily")


async def test_a_command_that_acquires_an_org_applies_its_aliases(program: Program) -> None:
    """A backfill and a run with --once each apply and revert aliases of stored names, and log it."""
    centre = StaticCentre()
    centre.put("f1", datetime(2024, 1, 1, 7, tzinfo=UTC), {"Paid": 3, "Settled": 2})
    centre.put("f1", datetime(2024, 1, 2, 7, tzinfo=UTC), {"Paid": 1})
    orgs = {"acme": SimulatedOrg(centre=centre, requests_per_second=None)}
    separate = [("Paid", 3), ("Settled", 2), ("Paid", 1), ("Settled", None)]
    folded = [("Settled", 5), ("Settled", 1)]
    add = "INSERT INTO flow_outcomes.outcome_alias VALUES ('acme', NULL, 'Paid', 'Settled') RETURNING old_name"
    remove = "DELETE FROM flow_outcomes.outcome_alias RETURNING old_name"

    def stored() -> list[tuple[str, int | None]]:
        rows = program.rows(
            "SELECT outcome_name, outcome_count FROM flow_outcomes.flow_outcome"
            " ORDER BY bucket_start, outcome_name"
        )
        return [(row["outcome_name"], row["outcome_count"]) for row in rows]

    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator)
        assert (await program.run(*BACKFILL)).code == 0
        assert stored() == separate
        for command in (BACKFILL, ("run", "--once")):
            for edit, expected in ((add, folded), (remove, separate)):
                assert program.rows(edit) == [{"old_name": "Paid"}]
                assert stored() != expected
                ended = await program.run(*command)
                assert (ended.code, stored()) == (0, expected)
                assert len(ended.find_events("alias_applied", org="acme", outcomes=1)) == 1
    assert program.rows("SELECT * FROM flow_outcomes.restatement") == []


async def test_a_database_with_a_publication_of_all_tables(program: Program) -> None:
    """Every command that writes works where logical replication publishes each change."""
    centre = StaticCentre()
    centre.put("f1", datetime(2024, 1, 1, 7, tzinfo=UTC), {"Paid": 3, "Settled": 2})
    orgs = {"acme": SimulatedOrg(centre=centre, requests_per_second=None)}
    with psycopg.connect(program.dsn, autocommit=True) as connection:
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(simulator)
        for arguments in (
            BACKFILL,
            ("alias", "add", "--org", "acme", "Paid", "Settled"),
            ("alias", "add", "--org", "acme", "Paid", "Done"),
            ("alias", "add", "--org", "acme", "--flow", "f1", "Paid", "Settled"),
            ("alias", "remove", "--org", "acme", "Paid", "Done"),
            BACKFILL,
            ("migrate",),
        ):
            ended = await program.run(*arguments)
            assert ended.code == 0, (arguments, ended)
    published = "SELECT 1 FROM pg_publication_tables WHERE tablename IN ('outcome_alias', 'figure_y2024m01')"
    assert len(program.rows(published)) == 2
    assert [row["new_name"] for row in program.rows("SELECT new_name FROM flow_outcomes.outcome_alias")] == [
        "Settled"
    ]
    program.rows("UPDATE flow_outcomes.outcome_alias SET new_name = 'X' RETURNING 1")
    program.rows("DELETE FROM flow_outcomes.outcome_alias RETURNING 1")

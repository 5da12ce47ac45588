"""Migrations by several processes at once."""

from __future__ import annotations

import asyncio

import psycopg

from service.postgres.migrate import rollback
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.program import Program


async def test_concurrent_migrations(new_program: Program) -> None:
    """Several processes on an empty database apply each migration once; a later one applies none."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(requests_per_second=None)})) as simulator:
        new_program.configure(simulator, ad_hoc={"one": {"org": "acme", "from": "2024-01-01", "to": "2024-01-03"}})
        ended = await asyncio.gather(
            new_program.run("migrate"),
            new_program.run("migrate"),
            new_program.run("run", "--once"),
        )
        assert [each.code for each in ended] == [0, 0, 0], ended
        assert [each.err for each in ended] == ["", "", ""]
        applied = [line for each in ended[:2] for line in each.out.splitlines() if line.startswith("applied ")]
        applied += [name for line in ended[2].find_events("schema_migrated") for name in line["applied"]]
        assert len(applied) == len({line.removeprefix("applied ") for line in applied}) > 0
        again = await new_program.run("migrate")
    assert (again.code, again.out, again.err) == (0, "the schema is up to date\n", "")
    assert {each["state"] for each in new_program.windows()} == {"complete"}


async def test_a_migration_that_waits_for_a_reader(program: Program) -> None:
    """It is reported with the reader's session, and the daemon is not ready until the reader has ended."""
    rollback(program.dsn, to="0009_create_export")
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(requests_per_second=None)})) as simulator:
        program.configure(simulator)
        async with await psycopg.AsyncConnection.connect(program.dsn, application_name="a report") as reader:
            await reader.execute("SELECT FROM flow_outcomes.org")
            pid = reader.info.backend_pid
            command = await program.start("migrate")
            daemon = await Daemon.start(program)
            blocked = await daemon.wait_for_event("migration_blocked")
            assert f"a lock on flow_outcomes.org of session {pid} (role " in blocked["reason"]
            assert "a report, idle in transaction, its transaction began " in blocked["reason"]
            status, reason = await daemon.get("/readyz")
            assert (status, "the schema is not current" in reason) == (503, True), reason
        await daemon.wait_until_ready()
        await daemon.end()
        ended = await command.end()
        assert ended.code == 0
        assert f"session {pid}" in ended.err

"""The daemon's exports: by themselves, by one process, beside extraction, and without a secret in the log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.export_harness import catalog_in
from tests.support.program import Program

JOBS = {"daily": {"since": "P3D", "off_peak": None}}
PATIENCE = 150.0  # seconds: an export begins with the start of a process, which gives way to others


@asynccontextmanager
async def source() -> AsyncIterator[Simulator]:
    """A simulated org."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg()})) as simulator:
        yield simulator


def configure(program: Program, simulator: Simulator, **export: Any) -> None:  # noqa: ANN401 - any key
    """Export every second into a folder, unless told otherwise."""
    given = {"warehouse": f"file://{program.folder}/warehouse", "every": "PT1S"} | export
    program.configure(simulator, jobs=JOBS, http={"port": 0}, export=given)


def rows(program: Program) -> int:
    return int(catalog_in(program.dsn).load_table("flow_outcomes.flow_outcome").scan().to_arrow().num_rows)


def stored(program: Program) -> int:
    [row] = program.rows("SELECT count(*)::int AS n FROM flow_outcomes.flow_outcome")
    return int(row["n"])


async def test_the_daemon_exports(program: Program) -> None:
    """It exports what it has extracted, reports that, and commits nothing where nothing is new."""
    async with source() as simulator:
        configure(program, simulator)
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("cycle_finished")
        await daemon.wait_until(lambda: stored(program) > 0, "figures")
        seen = daemon.count("export_finished")
        last = await daemon.wait_for_event("export_finished", times=seen + 2, within=PATIENCE)
        assert last["warehouse"] == f"file://{program.folder}/warehouse"
        assert rows(program) == stored(program) > 0
        files = sorted((program.folder / "warehouse").rglob("*"))
        quiet = await daemon.wait_for_event(
            "export_finished", times=daemon.count("export_finished") + 1, within=PATIENCE
        )
        assert (quiet["export"], quiet["months"], quiet["rows"]) == (last["export"], 0, 0)
        assert sorted((program.folder / "warehouse").rglob("*")) == files
        await asyncio.sleep(1.1)  # the status is cached for a second
        status = json.loads((await daemon.get("/api/status"))[1])["export"]
        assert (status["export"], status["failed_at"], status["last_error"]) == (last["export"], None, None)
        assert "flow_outcomes_export_failed 0.0" in (await daemon.get("/metrics"))[1]
        ended = await program.run("status")
        assert f"export to file://{program.folder}/warehouse: number {last['export']} of " in ended.out
        assert daemon.count("export_failed") == 0


async def test_two_daemons(program: Program) -> None:
    """They take turns: every export has its own number, and none fails."""
    async with source() as simulator:
        configure(program, simulator)
        daemons = [await Daemon.start(program), await Daemon.start(program)]
        first = daemons[0]
        await first.wait_for_event("cycle_finished")
        await first.wait_until(
            lambda: sum(each.count("export_finished") for each in daemons) >= 4, "exports", within=PATIENCE
        )
        written = [
            line["export"]
            for each in daemons
            for line in each.events
            if line["event"] == "export_finished" and line["months"]
        ]
        assert len(written) == len(set(written))
        assert [each.count("export_failed") for each in daemons] == [0, 0]
        assert rows(program) == stored(program) > 0


async def test_a_reload_begins_to_export(program: Program) -> None:
    """A section that a reload adds is exported to at once, and one that it removes no more."""
    async with source() as simulator:
        program.configure(simulator, jobs=JOBS, http={"port": 0})
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("cycle_finished")
        configure(program, simulator, every="PT1H")
        daemon.running.process.send_signal(signal.SIGHUP)
        await daemon.wait_for_event("export_finished", within=PATIENCE)
        assert rows(program) == stored(program) > 0
        configure(program, simulator, every="PT1H", namespace="another")
        daemon.running.process.send_signal(signal.SIGHUP)
        await daemon.wait_for_event("export_finished", times=2, within=PATIENCE)


@asynccontextmanager
async def waiting_export(program: Program, daemon: Daemon) -> AsyncIterator[int]:
    """An export whose process waits for the row of its lease; its process id."""
    async with await psycopg.AsyncConnection.connect(program.dsn) as blocking:
        await blocking.execute("SELECT FROM flow_outcomes.export_lease FOR UPDATE")
        pids: list[int] = []

        def found() -> bool:
            names = program.rows(
                "SELECT application_name AS name FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND application_name LIKE 'flow-outcomes export %%'"
            )
            pids[:] = [int(str(row["name"]).split(":")[1]) for row in names]
            return bool(pids)

        await daemon.wait_until(found, "an export that waits", within=PATIENCE)
        yield pids[0]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_the_daemon_ends_its_export(program: Program, how: signal.Signals) -> None:
    """No process of an export outlives the daemon, and another daemon exports."""
    async with source() as simulator:
        configure(program, simulator)
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("export_finished", within=PATIENCE)
        async with waiting_export(program, daemon) as pid:
            assert is_running(pid)
            os.kill(daemon.pid, how)
            code = await asyncio.wait_for(daemon.running.process.wait(), 15)
            assert code == (0 if how is signal.SIGTERM else -9)
            for _ in range(100):
                if not is_running(pid):
                    break
                await asyncio.sleep(0.1)
            assert not is_running(pid)
        other = await Daemon.start(program)
        await other.wait_for_event("export_finished", within=PATIENCE)
        assert rows(program) == stored(program)


async def test_a_suspended_daemon(program: Program) -> None:
    """Another daemon exports while the first one is stopped in the middle of an export."""
    async with source() as simulator:
        configure(program, simulator)
        daemon = await Daemon.start(program)
        await daemon.wait_for_event("export_finished", within=PATIENCE)
        async with waiting_export(program, daemon) as pid:
            os.kill(pid, signal.SIGSTOP)
            os.kill(daemon.pid, signal.SIGSTOP)
        try:
            program.rows("UPDATE flow_outcomes.export_lease SET expires_at = now() RETURNING 1 AS one")
            other = await Daemon.start(program)
            await other.wait_for_event("export_finished", within=PATIENCE)
        finally:
            os.kill(pid, signal.SIGCONT)
            os.kill(daemon.pid, signal.SIGCONT)
        await other.wait_for_event("export_finished", times=2, within=PATIENCE)
        assert rows(program) == stored(program)


async def test_without_the_extra(program: Program, tmp_path: Path) -> None:
    """The daemon extracts, and says how to install what is missing; the command exits 2."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text("import sys\nsys.modules['pyiceberg'] = None\n")
    environment = {"PYTHONPATH": str(tmp_path / "blocked")}
    async with source() as simulator:
        configure(program, simulator)
        daemon = Daemon(program, await program.start("run", environment=environment))
        failed = await daemon.wait_for_event("export_failed", within=PATIENCE)
        assert "needs pyiceberg. In a clone: .venv/bin/pip install '.[export]'" in failed["reason"]
        assert "--build-arg REQUIREMENTS=requirements-export.txt" in failed["reason"]
        await daemon.wait_for_event("cycle_finished")
        ended = await program.run("export", environment=environment)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("export: needs pyiceberg. ")


async def test_a_catalog_that_fails(program: Program) -> None:
    """Its password is in no log, no table and no status; extraction goes on."""
    secret = "canary-of-the-catalog"
    uri = f"postgresql+psycopg://me:{secret}@127.0.0.1:1/catalog"
    async with source() as simulator:
        configure(program, simulator, catalog={"type": "sql", "uri": uri, "token": "canary-token"})
        daemon = await Daemon.start(program)
        failed = await daemon.wait_for_event("export_failed", within=PATIENCE)
        assert failed["reason"].startswith("the catalog cannot be opened: OperationalError")
        await daemon.wait_for_event("cycle_finished")
        [state] = program.rows("SELECT last_error FROM flow_outcomes.export_lease")
        await asyncio.sleep(1.1)  # the status is cached for a second
        texts = [str(state), (await daemon.get("/api/status"))[1], "".join(daemon.running.out)]
        ended = await program.run("export")
        assert ended.code == 1
        assert "canary" not in "".join([*texts, ended.out, ended.err])
        assert "flow_outcomes_export_failed 1.0" in (await daemon.get("/metrics"))[1]

"""The dry run compared with the run that follows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from service.cli import main
from service.config import load_config
from service.runtime.once import run_once
from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from service.telemetry import Reporter


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    orgs = {"acme": SimulatedOrg(requests_per_second=None, flows=30)}
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        yield simulator


def file(folder: Path, dsn: str, simulator: Simulator) -> str:
    path = folder / "flow-outcomes.yaml"
    path.write_text(
        f"database: {{dsn: '{dsn}'}}\n"
        f"orgs: {{acme: {{base_url: '{simulator.base_url}', login_url: '{simulator.base_url}',"
        " client_id: acme, client_secret: simulated-secret, requests_per_second: 100, page_size: 10}}\n"
        "jobs: {daily: {since: P6D, lookback: P2D}}\n"
        "ad_hoc: {again: {org: acme, from: 2024-03-01, to: 2024-03-03}}\n"
    )
    return str(path)


async def test_the_plan_equals_the_run(
    database: str, tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first run the plan is a guess, after it the next run's requests; the plan writes nothing."""
    config = file(tmp_path, database, simulator)

    async def command(*argv: str) -> str:
        assert await asyncio.to_thread(main, [*argv, "--config", config]) == 0
        return capsys.readouterr().out

    first = json.loads(await command("plan", "--json"))["orgs"]["acme"]
    daily = first["jobs"]["daily"]
    assert daily["guess"]
    assert daily["windows"] == daily["new"] + daily["backlog"] >= 5
    assert daily["lookback"] == 0
    assert first["ad_hoc"]["windows"] == 1
    assert not simulator.arrivals
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM flow_outcomes.extraction_window").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM flow_outcomes.org").fetchone() == (0,)

    assert await run_once(load_config(Path(config)), Reporter().emit) == 0
    capsys.readouterr()
    second = json.loads(await command("plan", "--json"))["orgs"]["acme"]
    daily = second["jobs"]["daily"]
    assert not daily["guess"]
    assert (daily["windows"], daily["lookback"], daily["new"], daily["backlog"]) == (3, 3, 0, 0)
    assert second["ad_hoc"]["windows"] == 0
    assert second["seconds"] == pytest.approx(second["requests"] / 100, abs=0.1)

    simulator.arrivals.clear()
    assert await run_once(load_config(Path(config)), Reporter().emit) == 0
    capsys.readouterr()
    assert abs(len(simulator.arrivals) - second["requests"]) <= 1

    shown = await command("plan")
    assert "lookback" in shown
    assert f"acme: {second['requests']} requests" in shown


async def test_without_a_database(
    empty_database: str, tmp_path: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every window since ``since`` is planned, and the reason goes to standard error."""
    for dsn in (empty_database, "postgresql://127.0.0.1:1/none"):
        assert await asyncio.to_thread(main, ["plan", "--json", "--config", file(tmp_path, dsn, simulator)]) == 0
        printed = capsys.readouterr()
        plan = json.loads(printed.out)
        assert plan["ledger"] is False
        assert plan["orgs"]["acme"]["jobs"]["daily"]["windows"] >= 5
        assert "as if nothing were stored" in printed.err

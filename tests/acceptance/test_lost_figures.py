"""A restore that brought the ledger and lost the figures."""

from __future__ import annotations

import re
from datetime import timedelta

import psycopg

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import assert_exact
from tests.support.program import Program, today

JOBS = {
    "daily": {
        "since": (today() - timedelta(days=61)).date(),
        "granularity": "daily",
        "off_peak": None,
        "lookback": "PT0S",
    }
}


async def test_check_finds_them_and_says_what_to_do(program: Program) -> None:
    """All windows are complete and no figure is stored; the command that check prints brings them back."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(requests_per_second=None)})) as simulator:
        program.configure(simulator, jobs=JOBS)
        assert (await program.run("run", "--once")).code == 0
        ended = await program.run("check")
        assert (ended.code, "figures" in ended.out) == (0, False), ended.out
        with psycopg.connect(program.dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE flow_outcomes.figure")
        ended = await program.run("check")
        assert ended.code == 1
        [line] = [line for line in ended.out.splitlines() if "acme figures" in line]
        assert line.startswith("FAIL acme figures: ")
        assert " windows from " in line
        assert " and 0 of their " in line
        fix = re.search(r"flow-outcomes (backfill .*)$", line)
        assert fix is not None
        assert (await program.run(*fix.group(1).split())).code == 0
        assert_exact(program, simulator)
        ended = await program.run("check")
        assert ended.code == 0, ended.out


async def test_one_lost_partition(program: Program) -> None:
    """It is found, and months that a job no longer has, because they were removed on purpose, are not."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(requests_per_second=None)})) as simulator:
        program.configure(simulator, jobs=JOBS)
        assert (await program.run("run", "--once")).code == 0
        since = today() - timedelta(days=61)
        with psycopg.connect(program.dsn, autocommit=True) as connection:
            connection.execute(f"DROP TABLE flow_outcomes.figure_{since:y%Ym%m}".encode())
        ended = await program.run("check")
        assert (ended.code, f"from {since.date()}" in ended.out) == (1, True)
        month_later = (since.replace(day=1) + timedelta(days=32)).replace(day=1).date()
        program.configure(simulator, jobs={"daily": {**JOBS["daily"], "since": month_later}})
        ended = await program.run("check")
        assert ended.code == 0, ended.out

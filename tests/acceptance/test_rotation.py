"""Rotation of a client secret while the daemon runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.program import TIMEOUT, Program

JOB = {"daily": {"since": "P3D", "off_peak": None, "retry_every": "PT1S"}}
SECRET = "the-new-secret"


@pytest.mark.parametrize("from_file", [True, False], ids=["a file", "the configuration"])
async def test_a_secret_is_rotated(program: Program, tmp_path: Path, *, from_file: bool) -> None:
    """A secret in a file applies without a signal, one in the configuration at the reload."""
    simulator = Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(client_secret=SECRET, flows=2)}))
    file = tmp_path / "secret"
    file.write_text("the-old-secret\n")

    def org(secret: str) -> dict[str, object]:
        return {"client_secret": None, "client_secret_file": str(file)} if from_file else {"client_secret": secret}

    async with simulator:
        program.configure(simulator, orgs={"acme": org("the-old-secret")}, jobs=JOB, http={"port": 0})
        running = await program.start("run")
        await until(running.out, "window_failed")
        if from_file:
            file.write_text(f"{SECRET}\n")
        else:
            program.configure(simulator, orgs={"acme": org(SECRET)}, jobs=JOB, http={"port": 0})
            running.process.send_signal(signal.SIGHUP)
        await until(running.out, "window_complete")
        running.process.terminate()
        ended = await running.end()
    assert ended.code == 0
    assert SECRET not in ended.out + ended.err


async def until(lines: list[str], event: str) -> None:
    """Wait for an event in the log."""
    async with asyncio.timeout(TIMEOUT):
        while not any(f'"{event}"' in line for line in lines):  # noqa: ASYNC110 - another task reads the lines
            await asyncio.sleep(0.05)

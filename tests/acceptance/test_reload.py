"""SIGHUP while the configuration's file is being written."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import yaml

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig
from tests.support.daemon import Daemon
from tests.support.program import Program

ORG = SimulatedOrg(flows=2)


async def test_a_half_written_file(program: Program) -> None:
    """The complete file is applied; of a file that stays short, the event names what is gone."""
    async with Simulator(SimulatorConfig(orgs={"acme": ORG, "other": ORG})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": "P3D", "off_peak": None}}, http={"port": 0})
        tree: dict[str, Any] = yaml.safe_load(program.config.read_text())
        tree["orgs"] = {"acme": tree["orgs"]["acme"]}
        half = yaml.safe_dump(tree)
        tree["orgs"]["other"] = {**tree["orgs"]["acme"], "client_id": "other"}
        complete = yaml.safe_dump(tree)
        program.config.write_text(complete)
        daemon = await Daemon.start(program)
        program.config.write_text(half)
        daemon.send(signal.SIGHUP)
        await asyncio.sleep(0.2)  # the writer's pause
        program.config.write_text(complete)
        reloaded = await daemon.wait_for_event("config_reloaded")
        assert [reloaded[key] for key in ("added", "removed", "changed")] == [[], [], []]
        program.config.write_text(half)
        daemon.send(signal.SIGHUP)
        reloaded = await daemon.wait_for_event("config_reloaded", 2)
        assert (reloaded["removed"], reloaded["added"]) == (["orgs.other"], [])
        await daemon.end()

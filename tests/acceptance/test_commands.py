"""Every command: SIGTERM, one JSON document, warnings about what nobody has seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import SECRET, Program, today

CONFIG = """
database: {{dsn: "postgresql://a@127.0.0.1:{port}/x"}}
orgs:
  acme:
    base_url: http://127.0.0.1:{port}
    login_url: http://127.0.0.1:{port}
    client_id: acme
    client_secret: {secret}
jobs: {{daily: {{since: P3D}}}}
"""


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["status"],
        ["plan"],
        ["rejected"],
        ["migrate"],
        ["trigger"],
        ["alias", "list", "--org", "acme"],
        ["backfill", "--org", "acme", "--from", "2024-01-01", "--to", "2024-01-02"],
    ],
    ids=lambda command: command[0],
)
async def test_sigterm_ends_a_command(tmp_path: Path, command: list[str]) -> None:
    """A command that waits for a silent server ends within a second, with 143 and without a traceback."""
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1")
    async with server, Program(tmp_path, "") as program:
        port = server.sockets[0].getsockname()[1]
        program.config.write_text(CONFIG.format(port=port, secret=SECRET))
        running = await program.start(*command)
        async with asyncio.timeout(30):
            await connected.wait()
        sent = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        ended = await running.end()
        assert time.monotonic() - sent < 2, "one second, and the test's own"
        assert ended.code == 128 + signal.SIGTERM
        assert "Traceback" not in ended.err
        await asyncio.sleep(0)  # lets the server close its end


async def test_an_alias_of_what_nobody_has_seen(program: Program) -> None:
    """``alias add`` warns about a name or a flow that no scan reported, with similar ones; it is added."""
    centre = StaticCentre()
    centre.put("flow-1", today() - timedelta(days=1), {"Paid": 3})
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(centre=centre)})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": "P2D", "off_peak": None}})
        assert (await program.run("run", "--once")).code == 0
        seen = await program.run("alias", "add", "--org", "acme", "--flow", "flow-1", "Paid", "Settled")
        assert (seen.code, "warning" in seen.err) == (0, False), seen.err
        chain = await program.run("alias", "add", "--org", "acme", "Settled", "Done")
        assert (chain.code, "warning" in chain.err) == (0, False), chain.err
        name = await program.run("alias", "add", "--org", "acme", "Piad", "Done", "--json")
        assert name.code == 0
        assert "warning: no outcome 'Piad' was reported yet; did you mean Paid?" in name.err
        document = json.loads(name.out)
        assert document["warnings"] == ["no outcome 'Piad' was reported yet; did you mean Paid?"]
        flow = await program.run("alias", "add", "--org", "acme", "--flow", "flow-2", "Paid", "Done")
        assert "no flow 'flow-2' was reported yet; did you mean flow-1?" in flow.err
        assert len(json.loads((await program.run("alias", "list", "--org", "acme", "--json")).out)["aliases"]) == 4


async def test_commands_print_one_json_document(program: Program) -> None:
    """``--json`` prints one document and nothing else on standard output."""
    async with Simulator(SimulatorConfig(orgs={"acme": SimulatedOrg(flows=2)})) as simulator:
        program.configure(simulator, jobs={"daily": {"since": "P2D", "off_peak": None}})
        span = ["--from", "2024-01-01", "--to", "2024-01-03"]
        for command, key in (
            (["migrate"], "applied"),
            (["trigger"], "orgs"),
            (["backfill", "--org", "acme", *span], "stored"),
            (["status"], "orgs"),
            (["plan"], "orgs"),
            (["rejected"], "rejected"),
            (["alias", "list", "--org", "acme"], "aliases"),
            (["alias", "add", "--org", "acme", "A", "B"], "alias"),
            (["alias", "remove", "--org", "acme", "A"], "removed"),
        ):
            ended = await program.run(*command, "--json")
            assert ended.code == 0, (command, ended.err)
            assert key in json.loads(ended.out), command

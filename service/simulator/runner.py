"""``flow-outcomes simulate``: the simulator alone, for tests of other programs."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys

from service.simulator.command import build_config
from service.simulator.server import Simulator


async def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; print the address and the credentials as one JSON line when listening.

    Returns:
        The exit code: 0, or 2 if the address is unavailable.
    """
    simulator = Simulator(build_config(args))
    if args.now is not None:
        simulator.set_now(args.now)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with simulator:
            sys.stdout.write(json.dumps(_announcement(simulator)) + "\n")
            sys.stdout.flush()
            await stop.wait()
    except OSError as error:
        sys.stderr.write(f"--port: cannot listen on {args.host}:{args.port}: {error.strerror}\n")
        return 2
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    return 0


def _announcement(simulator: Simulator) -> dict[str, object]:
    orgs = [
        {"client_id": client_id, "client_secret": org.settings.client_secret, "timezone": org.settings.timezone}
        for client_id, org in simulator.orgs.items()
    ]
    return {"event": "simulator_started", "url": simulator.base_url, "orgs": orgs}

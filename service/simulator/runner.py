"""``flow-outcomes simulate``: the simulator alone, for tests of other programs."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from dataclasses import replace

from service.simulator.faults import Faults
from service.simulator.organisation import SimulatedOrg, SimulatorConfig
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


def build_config(args: argparse.Namespace) -> SimulatorConfig:
    """Build the configuration from the arguments."""
    org = SimulatedOrg(
        flows=args.flows,
        outcomes=args.outcomes,
        timezone=args.timezone,
        requests_per_second=None if args.unlimited else args.rate,
        token_lifetime=args.token_lifetime,
        cursor_lifetime=args.cursor_lifetime,
        cardinality=args.cardinality,
        order=args.order,
        split_entries=args.split_entries,
        latency=args.latency,
        requests_per_minute=None if args.unlimited else args.per_minute,
        extra_dimension=args.extra_dimension,
        job_polls=args.job_polls,
        names_permitted=not args.no_names,
        deleted_flows=args.deleted_flows,
        result_limit=args.result_limit,
        retention_days=args.retention,
        retention_permitted=not args.no_retention,
        divisions=args.divisions,
        permitted_divisions=args.permitted_divisions,
        nightly_corrections=args.nightly_corrections,
        faults=Faults(**dict(args.fault)),
    )
    orgs = {client_id: replace(org, client_secret=secret or org.client_secret) for client_id, secret in args.orgs}
    return SimulatorConfig(orgs=orgs, seed=args.seed, host=args.host, port=args.port)


def _announcement(simulator: Simulator) -> dict[str, object]:
    orgs = [
        {"client_id": client_id, "client_secret": org.settings.client_secret, "timezone": org.settings.timezone}
        for client_id, org in simulator.orgs.items()
    ]
    return {"event": "simulator_started", "url": simulator.base_url, "orgs": orgs}

"""The demo: an embedded PostgreSQL, a simulated Genesys Cloud, the daemon and its page."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from service.config import Config, load_config
from service.postgres import aliases
from service.postgres.aliases import Alias
from service.postgres.embedded import binaries
from service.postgres.embedded import folder as embedded_folder
from service.postgres.embedded import server as embedded
from service.postgres.pool import Database
from service.postgres.queries.summary import Summary, summary
from service.runtime.daemon import Daemon
from service.runtime.once import run_once
from service.simulator import CorrectedCentre, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from service.telemetry import Event, Reporter, counted, logs, traces
from service.telemetry.progress_bar import ProgressBar

CONFIG_FILE = "flow-outcomes.yaml"
ORGS = {"acme": ("flow-aggregates", "UTC"), "globex": ("query-builder", "Europe/Berlin")}
"""The API and the reporting time zone of each org."""
FLOWS = 40
SECRET = "simulated-secret"  # noqa: S105 - of a simulator on loopback
DAYS = 90
USUAL_PORT = 8080
_DAILY: dict[str, object] = {"since": f"P{DAYS}D", "off_peak": None, "retry_every": "PT1M"}
_OF_PUBLIC: dict[str, object] = {**_DAILY, "orgs": ["acme"]}
JOBS: dict[str, dict[str, object]] = {
    "daily": {**_OF_PUBLIC, "group_by": ["flowVersion", "mediaType"]},
    "executions": {**_OF_PUBLIC, "measure": "executions"},
    "milestones": {**_OF_PUBLIC, "measure": "milestones"},
    "daily_counts": {**_DAILY, "orgs": ["globex"]},
    "hourly": {"since": "P7D", "window": "hour", "granularity": "hourly", "off_peak": None},
}
"""What needs the flow-aggregates API has jobs of its own."""
STEP_PAUSE = 6.0
"""Seconds between two changes that the demo makes."""
CORRECTED, CORRECTION, CORRECTED_FLOWS = "Abandoned", 25, 3
OLD_NAME, NEW_NAME = "Self Service Completed", "Solved without an agent"


class _DemoProgress:
    """Follows the daemon's events: its address, and the first complete cycle of each job of each org.

    Attributes:
        address: ``host:port`` of the page, once the daemon has started.
        caught_up: set when every job has had a complete cycle.
    """

    def __init__(self, config: Config) -> None:
        self.address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.caught_up = asyncio.Event()
        self._behind: set[tuple[str, str | None]] = {
            (org, name) for name, job in config.jobs.items() for org in job.orgs or config.orgs
        }

    def on_event(self, event: str, context: Mapping[str, Any]) -> None:
        """Follow an event; to be subscribed to the reporter."""
        if event == Event.DAEMON_STARTED:
            self.address.set_result(context["http_address"])
        elif event == Event.CYCLE_FINISHED and context["complete"]:
            self._behind.discard((context["org"], context["job"]))
            if not self._behind:
                self.caught_up.set()


async def demo(*, port: int | None, once: bool) -> int:
    """Run the demo until it is stopped, or with ``once`` until the first full catch-up; returns the exit code.

    Args:
        port: port of the page; None is 8080, or any free one where that is in use.
        once: exit after the first full catch-up, with a table of what was stored.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    folder = _folder()
    try:
        centre = CorrectedCentre(GeneratedCentre(seed=7, flows=FLOWS))
        async with _simulator(centre) as simulator:
            config = _configuration(folder, simulator.base_url, port)
            logs.configure(config.log.level, config.log.format, sys.stderr)
            traces.configure()
            console.print(f"PostgreSQL in {folder}, a simulated Genesys Cloud on {simulator.base_url}, two orgs:")
            console.print(", ".join(f"{name} on {api}" for name, (api, _) in ORGS.items()))
            if once:
                return await _once(config, console)
            return await _until_stopped(config, folder, centre, console)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-demo-"))
    folder.chmod(0o755)  # the database's own user needs access; its data folder is private
    return folder


@asynccontextmanager
async def _simulator(centre: CorrectedCentre) -> AsyncIterator[Simulator]:
    orgs = {
        name: SimulatedOrg(client_secret=SECRET, flows=FLOWS, timezone=zone) for name, (_, zone) in ORGS.items()
    }
    first = next(iter(ORGS))
    orgs[first] = dataclasses.replace(orgs[first], centre=centre)
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        yield simulator


def _configuration(folder: Path, url: str, port: int | None) -> Config:
    """The demo's configuration, in a file that the other commands can read."""
    file = folder / CONFIG_FILE
    org = {"base_url": url, "login_url": url, "client_secret": SECRET}
    document = {
        "database": {"embedded": str(folder / "postgresql")},
        "http": {"port": _usual_port() if port is None else port},
        "log": {"level": "error", "format": "console"},
        "orgs": {
            name: {**org, "api": api, "client_id": name, "timezone": zone} for name, (api, zone) in ORGS.items()
        },
        "jobs": JOBS,
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return load_config(file, {})


def _usual_port() -> int:
    """8080, or 0 for any free one where that is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", USUAL_PORT))
        except OSError:
            return 0
    return USUAL_PORT


async def _once(config: Config, console: Console) -> int:
    server = embedded.Embedded(config.database.embedded or Path())
    dsn = await asyncio.to_thread(server.start)
    reporter = Reporter()
    try:
        with ProgressBar(sys.stderr) as bar:
            reporter.subscribe(bar.on_event)
            code = await run_once(config, reporter.emit)
        _print_summary(console, await summary(dsn))
    finally:
        await asyncio.to_thread(server.stop)
    return code


async def _until_stopped(config: Config, folder: Path, centre: CorrectedCentre, console: Console) -> int:
    reporter, progress, bar = Reporter(), _DemoProgress(config), ProgressBar(sys.stderr)
    reporter.subscribe(bar.on_event)
    reporter.subscribe(progress.on_event)
    daemon = Daemon(config, lambda: load_config(folder / CONFIG_FILE, {}), reporter)

    async def guide() -> None:
        page = f"http://{await progress.address}/"
        console.print(
            f"Open {page} in a browser and watch the days arrive under Health.", markup=False, soft_wrap=True
        )
        with bar:
            await progress.caught_up.wait()
        dsn = await asyncio.to_thread(embedded_folder.running_dsn, config.database.embedded or Path())
        if dsn is not None:
            _print_summary(console, await summary(dsn))
            _print_next_steps(console, page, dsn, folder)
            await _show_changes(daemon, dsn, centre, console)

    guiding = asyncio.create_task(guide())
    try:
        await daemon.serve()
    finally:
        guiding.cancel()
        await asyncio.gather(guiding, return_exceptions=True)
    return 0


async def _show_changes(daemon: Daemon, dsn: str, centre: CorrectedCentre, console: Console) -> None:
    """Correct figures in the source, then add an alias, so that the page shows both."""
    org = next(iter(ORGS))
    await asyncio.sleep(STEP_PAUSE)
    yesterday = datetime.now(UTC).replace(hour=12, minute=0) - timedelta(days=1)
    corrected = [flow for flow in centre.flows() if _reports(centre, flow.id, yesterday)][:CORRECTED_FLOWS]
    for flow in corrected:
        centre.correct(flow.id, yesterday, CORRECTED, CORRECTION)
    daemon.signals.deliver(daemon.signals.run_now)
    console.print(
        f"The source of {org} just corrected yesterday: {CORRECTION} more {CORRECTED!r} in"
        f" {counted(len(corrected), 'flow')}. The daemon extracts the last days again; see 'Restated' in the"
        " overview, and the timeline of the health view.",
        markup=False,
        soft_wrap=True,
    )
    await asyncio.sleep(STEP_PAUSE)
    database = Database(dsn, size=1, application_name="flow-outcomes demo")
    await database.open()
    try:
        await aliases.add(database, Alias(org, None, OLD_NAME, NEW_NAME))
    finally:
        await database.close()
    console.print(
        f"An alias now shows {OLD_NAME!r} as {NEW_NAME!r}, also in stored figures: a flow's view compares"
        " then and now.",
        markup=False,
        soft_wrap=True,
    )


def _reports(centre: CorrectedCentre, flow_id: str, at: datetime) -> bool:
    """Whether the flow reports the outcome that is corrected on the day of ``at``."""
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    span = (int(each.timestamp() * 1000) for each in (start, start + timedelta(days=1), datetime.now(UTC)))
    return any(name == CORRECTED and count for _, name, count in centre.count_outcomes(flow_id, *span))


def _print_summary(console: Console, stored: list[Summary]) -> None:
    table = Table("org", "granularity", "flows", "from", "to", "rows", "nulls", "sum of counts")
    for each in stored:
        table.add_row(
            each.org,
            each.granularity,
            f"{each.flows}",
            f"{each.first:%Y-%m-%d}",
            f"{each.last:%Y-%m-%d}",
            f"{each.rows:,}",
            f"{each.nulls:,}",
            f"{each.counted:,}",
        )
    console.print(table)


def _print_next_steps(console: Console, page: str, dsn: str, folder: Path) -> None:
    program = shlex.quote(str(Path(sys.argv[0])))
    psql = shlex.quote(str(binaries.installed() / "psql"))
    for line in (
        f"Open the page:     {page}",
        f"Show the status:   {program} status --config {folder}/{CONFIG_FILE}",
        f"Connect:           {dsn}",
        f"Read figures:      {psql} '{dsn}' -c 'SELECT * FROM flow_outcomes.flow_outcome LIMIT 20'",  # noqa: S608 - printed only
        "The daemon keeps running. Ctrl-C ends it and deletes everything that the demo created.",
    ):
        console.print(line, markup=False, soft_wrap=True)

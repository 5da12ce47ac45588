"""The whole thing with nothing to set up: PostgreSQL, a simulated Genesys Cloud, the daemon and its page."""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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
from service.telemetry import Emit, Reporter, logs
from service.telemetry.progress_bar import ProgressBar

ORGS = {"acme": "UTC", "globex": "Europe/Berlin"}
FLOWS = 40
SECRET = "simulated-secret"  # noqa: S105 - opens a simulator on loopback
DAYS = 90
JOBS: dict[str, dict[str, object]] = {
    "daily": {"since": f"P{DAYS}D", "off_peak": None, "retry_every": "PT1M"},
    "hourly": {"since": "P7D", "window": "hour", "granularity": "hourly", "off_peak": None},
}
SHOWN_AFTER = 6.0  # seconds from one thing that happens before one's eyes to the next
CORRECTED, MORE = "Abandoned", 25
OLD_NAME, NEW_NAME = "Self Service Completed", "Solved without an agent"


@dataclass
class _CaughtUp:
    """Sees when each job of each org has been through its backlog once."""

    left: set[tuple[str, str | None]] = field(default_factory=lambda: {(org, job) for org in ORGS for job in JOBS})
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, emit: Emit) -> Emit:
        def watched(event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
            emit(event, **context)
            if event == "cycle_finished" and context["complete"]:
                self.left.discard((context["org"], context["job"]))
                if not self.left:
                    self.done.set()

        return watched


async def demo(*, port: int | None, once: bool) -> int:
    """Run it: until the first catch-up with ``once``, else until it is stopped. The exit code.

    Args:
        port: of the page; None is 8080, or any free one where that is taken.
        once: end after the first full catch-up, with a table of what was stored.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    folder = _folder()
    try:
        centre = CorrectedCentre(GeneratedCentre(seed=7, flows=FLOWS))
        async with _simulator(centre) as simulator:
            config = _configuration(folder, simulator.base_url, port)
            logs.configure(config.log.level, config.log.format, sys.stderr)
            console.print(f"PostgreSQL in {folder}, a simulated Genesys Cloud on {simulator.base_url}, two orgs:")
            if once:
                return await _once(config, console)
            return await _until_stopped(config, folder, centre, console)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-demo-"))
    folder.chmod(0o755)  # the database's own user has to pass; its data folder is closed to others
    return folder


@asynccontextmanager
async def _simulator(centre: CorrectedCentre) -> AsyncIterator[Simulator]:
    orgs = {name: SimulatedOrg(client_secret=SECRET, flows=FLOWS, timezone=zone) for name, zone in ORGS.items()}
    first = next(iter(ORGS))
    orgs[first] = dataclasses.replace(orgs[first], centre=centre)
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        yield simulator


def _configuration(folder: Path, url: str, port: int | None) -> Config:
    """Written to a file, so that every other command works with it too."""
    file = folder / "flow-outcomes.yaml"
    org = {"base_url": url, "login_url": url, "client_secret": SECRET, "requests_per_second": 10}
    document = {
        "database": {"embedded": str(folder / "postgresql")},
        "http": {"port": _port(port)},
        "log": {"level": "error", "format": "console"},
        "orgs": {name: {**org, "client_id": name, "timezone": zone} for name, zone in ORGS.items()},
        "jobs": JOBS,
    }
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return load_config(file, {})


def _port(wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 8080))
        except OSError:
            return 0
    return 8080


async def _once(config: Config, console: Console) -> int:
    server = embedded.Embedded(config.database.embedded or Path())
    dsn = await asyncio.to_thread(server.start)
    try:
        with ProgressBar(sys.stderr) as bar:
            code = await run_once(config, bar.watch(Reporter().emit))
        _print(console, await summary(dsn))
    finally:
        await asyncio.to_thread(server.stop)
    return code


async def _until_stopped(config: Config, folder: Path, centre: CorrectedCentre, console: Console) -> int:
    reporter, caught_up = Reporter(), _CaughtUp()
    bar = ProgressBar(sys.stderr)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    reporter.emit = _noting(address, caught_up.watch(bar.watch(reporter.emit)))  # type: ignore[method-assign]
    daemon = Daemon(config, lambda: load_config(folder / "flow-outcomes.yaml", {}), reporter)

    async def tell() -> None:
        page = f"http://{await address}/"
        console.print(f"Open {page} in a browser and watch the calendar fill.", markup=False, soft_wrap=True)
        with bar:
            await caught_up.done.wait()
        dsn = await asyncio.to_thread(embedded_folder.running_dsn, config.database.embedded or Path())
        if dsn is not None:
            _print(console, await summary(dsn))
            _what_next(console, page, dsn, folder)
            await _show(daemon, dsn, centre, console)

    telling = asyncio.create_task(tell())
    try:
        await daemon.serve()
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
    return 0


async def _show(daemon: Daemon, dsn: str, centre: CorrectedCentre, console: Console) -> None:
    """A correction and a rename, as they come about in real life, for who watches the page."""
    org = next(iter(ORGS))
    await asyncio.sleep(SHOWN_AFTER)
    yesterday = datetime.now(UTC).replace(hour=12, minute=0) - timedelta(days=1)
    for flow in centre.flows()[:3]:
        centre.correct(flow.id, yesterday, CORRECTED, MORE)
    daemon.signals.ask(daemon.signals.run_now)
    console.print(
        f"Just now {org} corrected yesterday: {MORE} more {CORRECTED!r} in three flows. The daemon reads the last"
        " days again; see the R in the calendar and 'Changed lately'.",
        markup=False,
        soft_wrap=True,
    )
    await asyncio.sleep(SHOWN_AFTER)
    database = Database(dsn, size=1, application_name="flow-outcomes demo")
    await database.open()
    try:
        await aliases.add(database, Alias(org, None, OLD_NAME, NEW_NAME))
    finally:
        await database.close()
    console.print(
        f"And {OLD_NAME!r} is called {NEW_NAME!r} from now on, in all that is stored: an alias. Watch the chart.",
        markup=False,
        soft_wrap=True,
    )


def _noting(address: asyncio.Future[str], emit: Emit) -> Emit:
    def noted(event: str, **context: Any) -> None:  # noqa: ANN401 - a context holds anything
        if event == "daemon_started":
            address.set_result(context["http_address"])
        emit(event, **context)

    return noted


def _print(console: Console, stored: list[Summary]) -> None:
    table = Table("org", "granularity", "flows", "from", "to", "rows", "of them null", "sum of counts")
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


def _what_next(console: Console, page: str, dsn: str, folder: Path) -> None:
    program = shlex.quote(str(Path(sys.argv[0])))
    psql = shlex.quote(str(binaries.installed() / "psql"))
    for line in (
        f"Look at it:        {page}",
        f"Ask how it is:     {program} status --config {folder}/flow-outcomes.yaml",
        f"Connect:           {dsn}",
        f"See figures:       {psql} '{dsn}' -c 'SELECT * FROM flow_outcomes.flow_outcome LIMIT 20'",  # noqa: S608 - to be read
        "It goes on as a daemon; Ctrl-C ends it and takes everything away again.",
    ):
        console.print(line, markup=False, soft_wrap=True)

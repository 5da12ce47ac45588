"""The daemon: start, main loop, shutdown, and reload on SIGHUP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from service.clock import SystemClock
from service.config import Config
from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres import aliases
from service.postgres.lease import owner_requests
from service.postgres.lease.owner_requests import Kind
from service.postgres.pool import explain
from service.postgres.windows import requested_orgs
from service.runtime.database import ensure_migrated, open_database
from service.runtime.export_loop import ExportLoop
from service.runtime.org_loop import OrgLoop
from service.runtime.process import GRACE, Process
from service.runtime.reload import changes, read_when_unchanged
from service.runtime.signals import Signals
from service.runtime.suggestions import SuggestionLog
from service.runtime.timers import Timers
from service.telemetry import Event, Reporter, Warned, logs
from service.web import Load, WebServer, raise_descriptor_limit

SHUTDOWN_TIMEOUT = 5.0  # seconds to release the orgs and close the connections
REQUEST_POLL_INTERVAL = 2.0  # seconds
ALIAS_POLL_INTERVAL = 10.0  # seconds
SUGGESTION_POLL_INTERVAL = 10.0  # seconds

# A client is built from these keys of an org: where one changes, the org gets a new client.
_CLIENT_KEYS = (
    *("api", "base_url", "login_url", "region", "aggregates", "job_timeout"),
    *("client_id", "client_secret", "client_secret_file", "proxy", "certificates"),
)


class Daemon:
    """Runs its orgs' jobs until it is stopped. It is the ``DaemonView`` of the web server.

    Args:
        config: the configuration at the start.
        read_config: reads the configuration at a reload.
        reporter: receives every event.
        signals: the signals to act on.
        config_file: the configuration's file; at a reload it is read when it no longer changes.
    """

    def __init__(
        self,
        config: Config,
        read_config: Callable[[], Config],
        reporter: Reporter,
        signals: Signals | None = None,
        config_file: Path | None = None,
    ) -> None:
        self._config = config
        self._config_file = config_file
        self._read_config = read_config
        self._reporter = reporter
        self._emit = reporter.emit
        self.signals = signals or Signals()
        self._timers = Timers(SystemClock(), self._clock_stepped)
        self._runtime: Process | None = None
        self._loops: dict[str, tuple[OrgLoop, asyncio.Task[None]]] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._exports: ExportLoop | None = None

    async def serve(self) -> None:
        """Startup, main loop, shutdown.

        Raises:
            ConfigError: the port or the embedded database cannot be used as configured.
        """
        with self.signals.installed():
            async with AsyncExitStack() as stack:
                await self._start(stack)
                await self._main_loop()
                await self._drain()
        self._emit(Event.DAEMON_STOPPED)

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._config

    @property
    def dsn(self) -> str | None:
        """The database; None until an embedded one has started."""
        if self._runtime is not None:
            return self._runtime.dsn
        configured = self._config.database.dsn
        return None if configured is None else configured.get_secret_value()

    @property
    def storage_problem(self) -> str:
        """Why a scan could not be stored, within the last minute; or empty."""
        return "" if self._runtime is None else self._runtime.database.storage_problem

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics of this process's events."""
        return self._reporter.registry

    @property
    def warned(self) -> Sequence[Warned]:
        """The last warnings and errors, oldest first."""
        return self._reporter.warned

    def load(self) -> Mapping[str, Load]:
        """The scans in flight and waiting of each org that this process holds."""
        return {name: Load(*loop.worker.load()) for name, (loop, _) in self._loops.items() if loop.worker}

    async def _start(self, stack: AsyncExitStack) -> None:
        raise_descriptor_limit()
        web = WebServer(self)
        address = await web.start(self._config.http.host, self._config.http.port)
        stack.push_async_callback(web.stop)
        await stack.enter_async_context(self._timers.running())
        self._emit(Event.DAEMON_STARTED, http_address=address, orgs=list(self._config.orgs))
        await stack.enter_async_context(self._background(self._work()))

    async def _work(self) -> None:
        """Run everything that needs the database; waits for it without a limit."""
        async with open_database(self._config.database, long_lived=True, timeout=None) as dsn:
            await ensure_migrated(dsn, self._emit, timeout=None)
            async with Process(
                dsn, self._config.database.pool_size, self._emit, on_org_requested=self._drain_org
            ).running() as runtime:
                self._runtime = runtime
                suggestions = SuggestionLog(runtime.database, runtime.clock, self._emit)
                self._exports = ExportLoop(self._config.export, runtime.database, self._emit)
                exporting = asyncio.create_task(self._exports.run(), name="exports")
                try:
                    self._apply_config()
                    self.signals.any.set()  # act on signals that came before there was a database
                    await asyncio.gather(
                        self._poll(REQUEST_POLL_INTERVAL, lambda: self._poll_requests(runtime)),
                        self._poll(ALIAS_POLL_INTERVAL, lambda: self._poll_aliases(runtime)),
                        self._poll(SUGGESTION_POLL_INTERVAL, lambda: self._poll_suggestions(suggestions)),
                    )
                finally:
                    tasks = [exporting, *(task for _, task in self._loops.values())]
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                    self._runtime = None

    @asynccontextmanager
    async def _background(self, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
        self._working = asyncio.create_task(work)
        self._working.add_done_callback(lambda _: self.signals.any.set())
        try:
            yield
        finally:
            self._working.cancel()
            # each of its waits is bounded, their sum may still be too long
            await asyncio.wait({self._working}, timeout=SHUTDOWN_TIMEOUT)

    def _clock_stepped(self, seconds: float) -> None:
        self._emit(Event.CLOCK_STEPPED, seconds=round(seconds, 3))
        for loop, _ in self._loops.values():
            loop.clock_stepped()

    async def _main_loop(self) -> None:
        signals = self.signals
        while not signals.stop.is_set():
            await signals.any.wait()
            signals.any.clear()
            if self._working.done():
                self._working.result()  # raises the error that ended it
            if signals.reload.is_set():
                signals.reload.clear()
                await self._reload()
            if signals.run_now.is_set() and self._runtime is not None:
                signals.run_now.clear()
                await self._run_now(self._runtime)

    async def _run_now(self, runtime: Process) -> None:
        """Run what is due now in the orgs that this process holds; if it holds none, request it of the holders."""
        if runtime.held:
            for loop, _ in self._loops.values():
                loop.run_now()
            return
        orgs = list(self._config.orgs)
        try:
            await owner_requests.request(runtime.database, Kind.RUN, orgs)
        except Exception as error:  # noqa: BLE001 - an unexpected error must not end the daemon
            if not isinstance(error, DatabaseUnavailableError):
                self._emit(Event.UNEXPECTED_ERROR, org=None, job=None, exc_info=True)
            self._emit(Event.RUN_NOT_REQUESTED, orgs=orgs, reason=explain(error))
        else:
            self._emit(Event.RUN_REQUESTED, orgs=orgs)

    async def _drain(self) -> None:
        """Start nothing new and wait for what is in flight, up to ``GRACE`` seconds or a second stop signal."""
        if self._exports is not None:
            self._exports.close()
        for loop, _ in self._loops.values():
            loop.close()
        tasks = [task for _, task in self._loops.values()] + list(self._draining)
        stop_at_once = asyncio.create_task(self.signals.stop_at_once.wait())
        try:
            if tasks:
                all_done = asyncio.ensure_future(asyncio.wait(tasks))
                await asyncio.wait({all_done, stop_at_once}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
                all_done.cancel()
        finally:
            stop_at_once.cancel()

    async def _reload(self) -> None:
        try:
            config = await self._read_again()
        except ConfigError as error:
            self._emit(Event.CONFIG_REJECTED, faults=[f"{fault.key}: {fault.message}" for fault in error.faults])
            return
        old, restart_needed = self._config, self._config.restart_needed(config)
        self._config = config.model_copy(update={"database": old.database, "http": old.http})
        if config.log != old.log:
            logs.configure(config.log.level, config.log.format)
        self._apply_config()
        self._emit(Event.CONFIG_RELOADED, restart_needed=restart_needed, **changes(old, config))

    async def _read_again(self) -> Config:
        if self._config_file is None:
            return await asyncio.to_thread(self._read_config)
        return await read_when_unchanged(
            self._config_file, lambda: asyncio.to_thread(self._read_config), self.signals.stop.is_set
        )

    def _apply_config(self) -> None:
        """Run one loop for each configured org; reconfigure those that run, drain those that are gone."""
        runtime = self._runtime
        if runtime is None:
            return
        config = self._config
        if self._exports is not None:
            self._exports.configure(config.export)
        for name, (loop, _) in list(self._loops.items()):
            org = config.orgs.get(name)
            if org is not None and all(getattr(org, key) == getattr(loop.org, key) for key in _CLIENT_KEYS):
                loop.configure(config, org)
            else:
                self._drain_org(name)
        for name, org in config.orgs.items():
            # an org that needs a new client starts again when its former loop has ended
            if name not in self._loops and not any(task.get_name() == name for task in self._draining):
                loop = OrgLoop(config, org, runtime, self._timers, self._emit)
                self._loops[name] = loop, asyncio.create_task(loop.run(), name=name)

    def _drain_org(self, org: str) -> None:
        """Start nothing new in the org, and release it when what is in flight has ended."""
        if org in self._loops:
            loop, task = self._loops.pop(org)
            loop.close()
            self._draining.add(task)
            task.add_done_callback(self._org_drained)

    def _org_drained(self, task: asyncio.Task[None]) -> None:
        self._draining.discard(task)
        if not self.signals.stop.is_set():
            self._apply_config()

    async def _poll(self, interval: float, poll: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                await poll()
            except DatabaseUnavailableError:
                continue
            except Exception:  # noqa: BLE001 - an unexpected error must not end the daemon
                self._emit(Event.UNEXPECTED_ERROR, org=None, job=None, exc_info=True)

    async def _poll_requests(self, runtime: Process) -> None:
        """Start what other processes requested: ad hoc windows, runs of what is due, slots of the limit."""
        for org in await requested_orgs(runtime.database):
            if org in self._loops:
                self._loops[org][0].run_ad_hoc()
        for request in await owner_requests.pending(runtime.database):
            if request.org in self._loops:
                self._loops[request.org][0].answer(request)

    async def _poll_aliases(self, runtime: Process) -> None:
        """Apply edited aliases in the orgs that this process holds."""
        for org in await aliases.stale(runtime.database):
            if org in self._loops:
                await self._loops[org][0].apply_aliases()

    async def _poll_suggestions(self, suggestions: SuggestionLog) -> None:
        """Log suggested aliases of the orgs that this process holds."""
        for loop, _ in list(self._loops.values()):
            if loop.worker is not None:
                await suggestions.poll(loop.org, busy=any(loop.worker.load()))

"""The daemon: start, main loop, shutdown; and between them, whatever the signals ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

from service.clock import SystemClock
from service.config import Config
from service.errors import ConfigError, DatabaseUnavailableError
from service.postgres import aliases
from service.postgres.windows import requests
from service.runtime.database import ensure_migrated, open_database
from service.runtime.org_loop import OrgLoop
from service.runtime.process import GRACE, Process
from service.runtime.signals import Signals
from service.runtime.timers import Scheduler
from service.telemetry import Reporter, logs
from service.web import Load, WebServer

ENDING = 5.0  # seconds for giving back the orgs and closing the connections
ASKED_EVERY = 2.0  # seconds between two looks for ad hoc spans that somebody asked for
ALIASES_EVERY = 10.0  # and for edited aliases

# What an org's client is made of; another one needs another client.
_OTHER_CLIENT = (
    *("api", "base_url", "login_url", "region", "aggregates", "job_timeout"),
    *("client_id", "client_secret", "client_secret_file"),
)


class Daemon:
    """Works its orgs until it is told to stop.

    Args:
        config: what to do.
        read_config: reads the configuration anew for a reload.
        reporter: told every event.
        signals: what was asked for from outside.
    """

    def __init__(
        self,
        config: Config,
        read_config: Callable[[], Config],
        reporter: Reporter,
        signals: Signals | None = None,
    ) -> None:
        self._config = config
        self._read_config = read_config
        self._emit = reporter.emit
        self._reporter = reporter
        self.signals = signals or Signals()
        self._scheduler = Scheduler(SystemClock(), self._clock_stepped)
        self._runtime: Process | None = None
        self._loops: dict[str, tuple[OrgLoop, asyncio.Task[None]]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Startup, main loop, shutdown.

        Raises:
            ConfigError: the database cannot be used as it is configured.
        """
        with self.signals.installed():
            async with AsyncExitStack() as stack:
                await self._start(stack)
                await self._main_loop()
                await self._drain()
        self._emit("daemon_stopped")

    async def _start(self, stack: AsyncExitStack) -> None:
        web = WebServer(
            self._reporter.registry,
            lambda: self._runtime,
            lambda: self._config,
            self._load,
            lambda: self._reporter.warned,
        )
        address = await web.start(self._config.http.host, self._config.http.port)
        stack.push_async_callback(web.stop)
        await stack.enter_async_context(self._scheduler.running())
        self._emit("daemon_started", http_address=address, orgs=list(self._config.orgs))
        await stack.enter_async_context(self._background(self._work()))

    async def _work(self) -> None:
        """Everything that needs the database; it waits for it as long as it takes."""
        async with open_database(self._config.database, long_lived=True, timeout=None) as dsn:
            await ensure_migrated(dsn, self._emit, timeout=None)
            async with Process(
                dsn, self._config.database.pool_size, self._emit, on_org_requested=self._drain_org
            ).running() as runtime:
                self._runtime = runtime
                try:
                    self._open()
                    self.signals.any.set()  # what was asked for before there was anybody to do it
                    await asyncio.gather(
                        self._look(ASKED_EVERY, lambda: self._look_for_asked(runtime)),
                        self._look(ALIASES_EVERY, lambda: self._look_for_aliases(runtime)),
                    )
                finally:
                    for _, task in self._loops.values():
                        task.cancel()
                    await asyncio.gather(*(task for _, task in self._loops.values()), return_exceptions=True)
                    self._runtime = None

    @asynccontextmanager
    async def _background(self, work: Coroutine[None, None, None]) -> AsyncIterator[None]:
        self._working = asyncio.create_task(work)
        self._working.add_done_callback(lambda _: self.signals.any.set())
        try:
            yield
        finally:
            self._working.cancel()
            # Its own waits have ends; together they may be longer than anybody waits for a process to end.
            await asyncio.wait({self._working}, timeout=ENDING)

    def _clock_stepped(self, seconds: float) -> None:
        self._emit("clock_stepped", seconds=round(seconds, 3))
        for loop, _ in self._loops.values():
            loop.clock_stepped()

    def _load(self) -> dict[str, Load]:
        """What each org that this process holds is at."""
        return {name: Load(*loop.worker.load()) for name, (loop, _) in self._loops.items() if loop.worker}

    async def _main_loop(self) -> None:
        signals = self.signals
        while not signals.stop.is_set():
            await signals.any.wait()
            signals.any.clear()
            if self._working.done():
                self._working.result()  # raises what ended it
            if signals.reload.is_set():
                signals.reload.clear()
                await self._reload()
            if signals.run_now.is_set() and self._runtime is not None:
                signals.run_now.clear()
                for loop, _ in self._loops.values():
                    loop.run_now()

    async def _drain(self) -> None:
        """Begin nothing new, and give what is in flight its time; a second signal takes it away."""
        for loop, _ in self._loops.values():
            loop.close()
        ending = [task for _, task in self._loops.values()] + list(self._leaving)
        at_once = asyncio.create_task(self.signals.stop_at_once.wait())
        try:
            if ending:
                everything = asyncio.ensure_future(asyncio.wait(ending))
                await asyncio.wait({everything, at_once}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
                everything.cancel()
        finally:
            at_once.cancel()

    async def _reload(self) -> None:
        try:
            config = await asyncio.to_thread(self._read_config)
        except ConfigError as error:
            self._emit("config_rejected", faults=[f"{fault.key}: {fault.message}" for fault in error.faults])
            return
        restart = self._config.restart_needed(config)
        old, self._config = (
            self._config,
            config.model_copy(update={"database": self._config.database, "http": self._config.http}),
        )
        if config.log != old.log:
            logs.configure(config.log.level, config.log.format)
        self._open()
        self._emit("config_reloaded", restart_needed=restart)

    def _open(self) -> None:
        """Have a loop for each configured org, and for no other; change those that have changed."""
        runtime = self._runtime
        if runtime is None:
            return
        config = self._config
        for name, (loop, _) in list(self._loops.items()):
            org = config.orgs.get(name)
            if org is not None and all(getattr(org, key) == getattr(loop.org, key) for key in _OTHER_CLIENT):
                loop.configure(config, org)
            else:
                self._drain_org(name)
        for name, org in config.orgs.items():
            # an org whose client has to be another one begins again when the old one has ended
            if name not in self._loops and not any(task.get_name() == name for task in self._leaving):
                loop = OrgLoop(config, org, runtime, self._scheduler, self._emit)
                self._loops[name] = loop, asyncio.create_task(loop.run(), name=name)

    def _drain_org(self, org: str) -> None:
        """Begin nothing new in the org, and give it back when what is in flight has ended."""
        if org in self._loops:
            loop, task = self._loops.pop(org)
            loop.close()
            self._leaving.add(task)
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not self.signals.stop.is_set():
            self._open()

    async def _look(self, every: float, look: Callable[[], Coroutine[None, None, None]]) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await look()
            except DatabaseUnavailableError:
                continue
            except Exception:  # noqa: BLE001 - what nobody thought of must not end the daemon
                self._emit("unexpected_error", org=None, job=None, exc_info=True)

    async def _look_for_asked(self, runtime: Process) -> None:
        for org in await requests.requested_orgs(runtime.database):
            if org in self._loops:
                self._loops[org][0].run_ad_hoc()

    async def _look_for_aliases(self, runtime: Process) -> None:
        for org in await aliases.stale(runtime.database):
            if org in self._loops:
                await self._loops[org][0].apply_aliases()

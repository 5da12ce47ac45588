"""Chromium with the real server on a real database; skipped where the driver or a browser is missing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from service.telemetry import Reporter
from service.web import Load, WebServer
from tests.support import sample_database
from tests.support.fake_daemon import FakeDaemon

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Site:
    """The server's address, and the database behind it."""

    url: str
    dsn: str

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values)
            return cursor.fetchall() if cursor.description else []


@dataclass
class View:
    """A page and its console messages."""

    page: Page
    messages: list[str] = field(default_factory=list)


Open = Callable[..., View]


@pytest.fixture
def site(database: str) -> Iterator[Site]:
    sample_database.plant(database)
    reporter = Reporter()
    config = sample_database.config(database)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    reporter.emit("rate_limited", org="globex", job="daily", retry_after=50)
    web = WebServer(FakeDaemon(config, database, {"acme": Load(3, 7)}, reporter))
    address = asyncio.run_coroutine_threadsafe(web.start("127.0.0.1", 0), loop).result(10)
    try:
        yield Site(f"http://{address}/", database)
    finally:
        asyncio.run_coroutine_threadsafe(web.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")  # while it lasts this thread has a running loop, which other modules' tests need
def browser() -> Iterator[Browser]:
    driver = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("there is no chromium here")
    with driver.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def view(browser: Browser, site: Site) -> Iterator[Open]:
    """Opens the page and waits for its first poll; fails at the end if the console has a message."""
    opened: list[View] = []

    def opens(**context: Any) -> View:  # noqa: ANN401 - the driver's own options
        made = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | context))
        seen = View(made.new_page())
        seen.page.on("console", lambda message: seen.messages.append(message.text))
        seen.page.on("pageerror", lambda error: seen.messages.append(str(error)))
        opened.append(seen)
        seen.page.goto(site.url)
        if context.get("java_script_enabled", True):
            seen.page.wait_for_selector("body[data-polls]", timeout=20_000)
        return seen

    yield opens
    for each in opened:
        assert each.messages == []
        each.page.context.close()

"""Chromium with the real server on a real database; skipped where the driver or a browser is missing."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from service.config import Config
from service.telemetry import Reporter
from service.web import Load, WebServer
from tests.support import sample_database, sample_weeks
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

    def note(self, text: str) -> None:
        """Keep a message, but not chromium's own of a 503: a slow database's, which the page requests again."""
        if "503 (Service Unavailable)" not in text:
            self.messages.append(text)


Open = Callable[..., Any]


@contextmanager
def serving(dsn: str, config: Config, problem: str = "") -> Iterator[Site]:
    """Run the server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    reporter = Reporter()
    reporter.emit(
        "rate_limited", org="globex", job="daily", retry_after=50, flows=["a", "b"], at="2026-03-01T23:30:00.000Z"
    )
    web = WebServer(FakeDaemon(config, dsn, {"acme": Load(3, 7)}, reporter, problem))
    address = asyncio.run_coroutine_threadsafe(web.start("127.0.0.1", 0), loop).result(10)
    try:
        yield Site(f"http://{address}/", dsn)
    finally:
        asyncio.run_coroutine_threadsafe(web.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def site(database: str) -> Iterator[Site]:
    """Two orgs with windows in every state."""
    sample_database.plant(database)
    with serving(database, sample_database.config(database)) as site:
        yield site


@pytest.fixture
def weeks(database: str) -> Iterator[Site]:
    """One org whose figures changed in the ways that the overview and a flow's view must show."""
    sample_weeks.plant(database, flows=12)
    with serving(database, sample_weeks.config(database)) as site:
        yield site


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
def view(browser: Browser) -> Iterator[Open]:
    """Opens a page of a site and waits until it is shown; fails at the end if the console has a message."""
    opened: list[View] = []

    def opens(site: Site, path: str = "", **context: Any) -> Page:  # noqa: ANN401 - the driver's own options
        made = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | context))
        seen = View(made.new_page())
        seen.page.set_default_timeout(20_000)
        seen.page.on("console", lambda message: seen.note(message.text))
        seen.page.on("pageerror", lambda error: seen.messages.append(str(error)))
        opened.append(seen)
        seen.page.goto(site.url + path)
        if context.get("java_script_enabled", True):
            seen.page.wait_for_selector("body[data-shown][data-polls]")
        return seen.page

    yield opens
    for each in opened:
        assert each.messages == []
        each.page.context.close()


def rows(page: Page, within: str) -> list[list[str]]:
    """Return the texts of a table's cells."""
    texts = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    found: list[list[str]] = page.eval_on_selector_all(f"{within} tbody tr", texts)
    return found


def violations(page: Page) -> list[str]:
    """Return what axe finds against WCAG 2.2 AA, as the rule and the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    results = axe.run(page, options={"runOnly": {"type": "tag", "values": tags}})
    return [
        f"{each['id']}: {', '.join(str(node['target']) for node in each['nodes'][:5])}"
        for each in results.response["violations"]
    ]

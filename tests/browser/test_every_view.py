"""What holds for every view: size of targets, paper, a link with an org that is not here."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from service.errors import DatabaseUnavailableError
from service.web.response_cache import ResponseCache
from tests.browser.conftest import Open, Site, serving
from tests.support import sample_weeks
from tests.support.sample_weeks import CORRECTED, midnight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from service.web.response_cache import CachedResponse

VIEWS = ("", f"flow?org=acme&flow={CORRECTED}", "flow?org=acme", "health?open=acme/daily")
SMALL = """() => [...document.querySelectorAll("a, button, input, select, summary, td[tabindex]")]
    .filter(each => each.offsetParent && !each.closest(".skip"))
    .map(each => [each.outerHTML.slice(0, 80), each.getBoundingClientRect()])
    .filter(([, box]) => box.width < 24 || box.height < 24).map(([text]) => text)"""
CUT = """() => [document.documentElement, ...document.querySelectorAll(".scroll")]
    .filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.outerHTML.slice(0, 80))"""


def test_targets(weeks: Site, view: Open) -> None:
    """Every control has 24 pixels at least in each direction, also on a phone."""
    for path in (*VIEWS, f"{VIEWS[1]}&vs=now&at={midnight(3):%Y-%m-%dT00:00:00Z}", "flow?org=acme&flow=none"):
        page = view(weeks, path, viewport={"width": 390, "height": 844})
        page.wait_for_selector("main h1")
        assert page.evaluate(SMALL) == [], path


def test_paper(weeks: Site, view: Open) -> None:
    """Printed on A4, no view is cut off at the right, and nothing says that it scrolls."""
    for path in VIEWS:
        page = view(weeks, path, viewport={"width": 718, "height": 1000})  # A4 without its margins
        page.emulate_media(media="print")
        assert page.evaluate(CUT) == [], path
        assert not page.locator(".scroll-hint").first.is_visible(), path


@pytest.mark.parametrize("path", ["?org=nobody", "flow?org=nobody", "health?org=nobody"])
def test_an_org_that_is_not_here(weeks: Site, view: Open, path: str) -> None:
    """A link from another installation does not pass another org's figures off as that org's."""
    page = view(weeks, path)
    assert "There is no org “nobody”: this is acme" in page.inner_text("#fresh")


def test_a_slow_database_is_no_error(weeks: Site, view: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that is not read in time is requested again, and the view shows that it loads."""
    get, failed = ResponseCache.get, Counter[str]()

    async def late(
        cache: ResponseCache, key: str, make: Callable[..., Awaitable[Any]], *, cost_factor: float = 10
    ) -> CachedResponse:
        if key.startswith("/api/flow ") and not failed[key]:
            failed[key] += 1
            raise DatabaseUnavailableError("the database did not answer within 2.5 s")
        return await get(cache, key, make, cost_factor=cost_factor)

    monkeypatch.setattr(ResponseCache, "get", late)
    page = view(weeks, "flow?org=acme&flow=flow-0")
    assert failed.total() == 1
    assert page.locator(".failure").count() == 0
    assert page.inner_text("h1") == "Billing Self-Service"


def test_an_unchanged_header_stays(weeks: Site, view: Open) -> None:
    """A poll that brings nothing new leaves the focus where it is, and a screen reader hears nothing."""
    page = view(weeks, "health")
    page.focus("nav a >> nth=1")
    page.evaluate(
        "() => new MutationObserver(() => window.changed = true)"
        ".observe(document.querySelector('header'), { subtree: true, childList: true, characterData: true })"
    )
    polls = page.evaluate("() => Number(document.body.dataset.polls)")
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("polls => document.body.dataset.polls > polls", arg=polls)
    assert page.evaluate("() => document.activeElement.textContent") == "Flow"
    assert not page.evaluate("() => window.changed")


def test_the_header_of_many_orgs(database: str, view: Open) -> None:
    """With several orgs the name stays on one line, and no line of the state begins with a separator."""
    for org in ("acme", "org01"):
        sample_weeks.plant(database, flows=2, org=org)
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE flow_outcomes.extraction_window SET state = 'failed', last_error = 'timeout',"
            " completed_at = NULL WHERE window_start = %s",
            [midnight(4)],
        )
    with serving(database, sample_weeks.config(database, orgs=12), "nothing can be stored: disk full") as site:
        for width in (1440, 768, 390):
            page = view(site, viewport={"width": width, "height": 900})
            height = page.eval_on_selector(".brand", "each => each.getBoundingClientRect().height")
            assert height < 40, width
            assert page.eval_on_selector_all("#fresh > span", "all => all.length") == 4
            assert "·" not in page.inner_text("#fresh")  # it is drawn after a part, with that part
            page.context.close()


def test_the_mark_of_a_flow_on_paper(weeks: Site, view: Open) -> None:
    """A printed name and its mark are complete, and all cells of a table have one size."""
    page = view(weeks, viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    tag = page.locator("tbody .tag").first
    box, cell = tag.bounding_box(), tag.locator("xpath=ancestor::th").bounding_box()
    assert box is not None
    assert cell is not None
    assert box["x"] + box["width"] <= cell["x"] + cell["width"]
    assert "Night Desk" in tag.locator("xpath=..").inner_text()
    assert page.eval_on_selector(".named:has(.tag) a", "each => each.scrollWidth <= each.clientWidth")
    page = view(weeks, f"flow?org=acme&flow={CORRECTED}", viewport={"width": 718, "height": 1000})
    page.emulate_media(media="print")
    sizes = page.eval_on_selector_all(
        "#sums tbody :is(th, td)", "all => all.map(each => getComputedStyle(each).fontSize)"
    )
    assert set(sizes) == {"12px"}
    assert not page.locator("#as-of").is_visible()

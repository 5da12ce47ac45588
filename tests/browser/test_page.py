"""The page in a browser: it shows what the database holds, and executes nothing that it shows."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.conftest import Open, Site
from tests.support import sample_database
from tests.support.sample_database import FLOW, HOSTILE, day

CELLS = ".calendar[data-org=acme][data-job=daily] td[data-day]"
States = dict[str, str]


def cell(back: int) -> str:
    return f'.calendar[data-org=acme][data-job=daily] td[data-day="{day(back)}"]'


def test_the_calendar_is_the_ledger(view: Open, site: Site) -> None:
    """Each day has the letter of the ledger's windows, and the state in words."""
    page = view().page
    shown: States = dict(
        page.eval_on_selector_all(CELLS, "cells => cells.map(each => [each.dataset.day, each.dataset.state])")
    )
    rows = site.rows(
        "SELECT to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD'), state, doubted_in IS NOT NULL"
        " FROM flow_outcomes.extraction_window WHERE org = 'acme' AND job = 'daily'"
    )
    letters = {"complete": "C", "failed": "F", "pending": "L", "running": "A"}
    expected = {when: "D" if doubted else letters[state] for when, state, doubted in rows}
    expected |= {day(sample_database.NEVER): "N", day(sample_database.RESTATED): "R"}
    assert {when: state for when, state in shown.items() if state not in ".W"} == expected
    for back, words in (
        (sample_database.FAILED, "failed"),
        (sample_database.LATE, "late"),
        (sample_database.RESTATED, "restated"),
        (sample_database.NEVER, "not requested"),
        (sample_database.DOUBTED, "unconfirmed"),
    ):
        assert words in (page.get_attribute(cell(back), "aria-label") or "")


def test_missing_windows_with_reasons(view: Open) -> None:
    """The summary counts missing windows, and each is listed with its day and reason."""
    page = view().page
    summary = r"4 of \d+ due windows missing; 1 complete window unconfirmed"
    assert re.match(summary, page.inner_text("#summary"))
    lines = page.locator("#gaps li").all_inner_texts()
    for back, words in (
        (sample_database.FAILED, "failed: the page was cut short"),
        (sample_database.LATE, "late: due, not extracted yet"),
        (sample_database.NEVER, "not requested: due"),
        (sample_database.DOUBTED, "unconfirmed: the scan came back wholly empty"),
    ):
        assert any(day(back) in line and words in line for line in lines), (words, lines)


def test_a_click_opens_a_day(view: Open, site: Site) -> None:
    """Pages, rows, attempts, last error and restatements, as they are stored."""
    page = view().page
    page.click(cell(sample_database.FAILED))
    page.wait_for_selector("#day-body table")
    assert "the page was cut short" in page.inner_text("#day-body")
    assert page.locator("#day-body tbody td").all_inner_texts()[2] == "4"
    page.click(cell(sample_database.RESTATED))
    page.wait_for_selector("#day-body h3:has-text('2 restatements')")
    shown = {tuple(row[-3:]) for row in _rows(page, "#day-body [aria-label=Restatements]")}
    stored = site.rows("SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement")
    assert shown == {(name, str(old), "null" if new is None else str(new)) for name, old, new in stored}


def test_by_keyboard(view: Open) -> None:
    """Tab reaches the calendar, arrow keys move, Enter opens a day, Escape closes it."""
    page = view().page
    page.focus(cell(sample_database.FAILED))
    for _ in range(sample_database.FAILED, sample_database.DOUBTED):
        page.keyboard.press("ArrowUp")
    at = "el => el.ownerDocument.activeElement.dataset.day"
    body = page.locator("body")
    assert body.evaluate(at) == day(sample_database.DOUBTED)
    page.keyboard.press("Enter")
    page.wait_for_selector("#day-body table")
    assert "wholly empty" in page.inner_text("#day-body")
    assert body.evaluate("el => el.ownerDocument.activeElement.id") == "day-title"
    page.keyboard.press("Escape")
    assert page.is_hidden("#day")
    assert body.evaluate(at) == day(sample_database.DOUBTED)
    reached, focused = set(), "el => (at => at.id || at.tagName)(el.ownerDocument.activeElement)"
    page.locator("body").evaluate("el => el.ownerDocument.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(body.evaluate(focused))
    assert {"calendar-org", "flow", "granularity", "chart", "TD", "BUTTON"} <= reached


def test_shares_are_those_of_the_view(view: Open, site: Site) -> None:
    """The table has each bucket's counts and shares; null is shown as null, an absent figure as blank."""
    page = view().page
    page.select_option("#flow", FLOW)
    page.wait_for_selector("#chart-legend li:has-text('Abandoned')")
    assert page.locator("#chart canvas").count() == 1
    page.click("#figures summary")
    page.wait_for_selector("#figures-body tbody tr")
    headings = page.locator("#figures-body th").all_inner_texts()[1:]
    shown = {
        (row[0], name): figure
        for row in _rows(page, "#figures-body")
        for name, figure in zip(headings, row[1:], strict=True)
        if figure
    }
    stored = {
        (when, name): "null" if count is None else f"{count:,} ({share:.1%})".replace("%", " %")
        for when, name, count, share in site.rows(
            "SELECT to_char(bucket_start AT TIME ZONE 'UTC', 'YYYY-MM-DD'), outcome_name, outcome_count,"
            " outcome_share FROM flow_outcomes.flow_outcome WHERE org = 'acme' AND granularity = 'daily'"
            " AND bucket_start >= date_trunc('day', now()) - interval '89 days'"
        )
    }
    assert shown == stored
    assert "5 buckets with a figure that is null" in page.inner_text("#chart-note")


def test_a_hostile_name_is_text(view: Open) -> None:
    """A name with markup is shown as text in every list; no element is created from it."""
    page = view().page
    page.select_option("#flow", FLOW)
    page.wait_for_selector("#chart-legend li:has-text('<img')")
    page.click(cell(sample_database.RESTATED))
    page.wait_for_selector("#day-body h3:has-text('2 restatements')")
    for place in ("#chart-legend", "#restated", "#day-body", "#flow"):
        assert HOSTILE in (page.text_content(place) or ""), place
    assert page.locator("img").count() == 0
    assert "owned" not in page.title()


def test_live_without_a_reload(view: Open, site: Site) -> None:
    """A completed window and a restatement appear within seconds without a reload."""
    page = view().page
    page.locator("body").evaluate("el => { el.dataset.mine = 'kept'; }")
    site.rows(
        "UPDATE flow_outcomes.extraction_window SET state = 'complete', last_error = NULL, completed_at = now()"
        " WHERE org = 'acme' AND state = 'failed'"
    )
    site.rows(
        "INSERT INTO flow_outcomes.restated VALUES ('acme', 2, 'daily', %s, now(), 'SelfServed', 7, 1234567)", FLOW
    )
    page.wait_for_selector(f"{cell(sample_database.FAILED)}[data-state=C]", timeout=15_000)
    page.wait_for_selector("#restated td:has-text('1234567')", timeout=15_000)
    page.wait_for_selector("#summary:has-text('3 of ')", timeout=15_000)
    assert page.get_attribute("body", "data-mine") == "kept"


def test_now(view: Open) -> None:
    """Queue, breaker, Retry-After, the newest window's age and the last warnings."""
    page = view().page
    acme, globex = (page.inner_text(f".card[data-org={org}]") for org in ("acme", "globex"))
    assert "3 scans in flight, 7 waiting" in acme
    assert "rate-limited for" in globex
    assert "open until" in globex
    assert "another process: host:2" in globex
    assert "ago" in acme
    assert "rate_limited" in page.inner_text("#warnings")


def test_dark(view: Open) -> None:
    """The dark colour scheme has a dark background and light text."""
    brightness = "el => getComputedStyle(el).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    ink = brightness.replace("backgroundColor", "color")
    light, dark = view().page.locator("body"), view(color_scheme="dark").page.locator("body")
    assert min(light.evaluate(brightness)) > 200
    assert max(light.evaluate(ink)) < 100
    assert max(dark.evaluate(brightness)) < 60
    assert min(dark.evaluate(ink)) > 180


def test_on_a_phone(view: Open) -> None:
    """Nothing is wider than the screen except scrollable parts, and the newest days are visible."""
    page = view(viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True).page
    assert page.locator("html").evaluate("el => el.scrollWidth") <= 360
    box = page.locator(cell(1)).bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 360


def test_without_a_script(view: Open) -> None:
    """Without a script the status table is shown and the other sections are hidden."""
    page = view(java_script_enabled=False).page
    assert "acme" in page.inner_text("#status tbody")
    assert "the page was cut short" in page.inner_text("#status tbody")
    assert page.is_hidden("#coverage")


def _rows(page: Any, within: str) -> list[list[str]]:  # noqa: ANN401 - the driver need not be there
    texts = "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    found: list[list[str]] = page.eval_on_selector_all(f"{within} tbody tr", texts)
    return found

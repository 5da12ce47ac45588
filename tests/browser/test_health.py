"""The health in a browser: strips, calendars and days are the ledger's, problems have a cause and a command."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Open, Site, violations
from tests.support import sample_database
from tests.support.sample_database import FLOW, HOSTILE, day

CELLS = ".calendar[data-org=acme][data-job=daily] td[data-day]"
OPEN = "health?open=acme/daily"


def cell(back: int) -> str:
    return f'.calendar[data-org=acme][data-job=daily] td[data-day="{day(back)}"]'


def opened(view: Open, site: Site, back: int | None = None, **context: object) -> Any:  # noqa: ANN401 - the driver's page
    page = view(site, OPEN + (f"&day={day(back)}" if back is not None else ""), **context)
    page.wait_for_selector(CELLS)
    if back is not None:
        page.wait_for_selector("#day-title")
    return page


def test_the_calendar_is_the_ledger(view: Open, site: Site) -> None:
    """Each day has the letter of the ledger's windows, and the state in words."""
    page = opened(view, site)
    shown = dict(
        page.eval_on_selector_all(CELLS, "all => all.map(each => [each.dataset.day, each.dataset.state])")
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


def test_problems_have_causes_and_commands(view: Open, site: Site) -> None:
    """Each cause has its org and days, the reason, and the command that would fetch them."""
    page = view(site, "health")
    assert page.eval_on_selector_all(".cause", "all => all.map(each => each.dataset.state)") == [
        "failed",
        "not requested",
        "late",
        "doubted",
        "running",
    ]
    first = page.locator(".cause").first
    assert "A page without its next token" in first.inner_text()
    assert sample_database.TRUNCATED in first.inner_text()
    assert first.locator("code").inner_text() == (
        f"flow-outcomes backfill --org acme --from {day(sample_database.FAILED)}"
        f" --to {day(sample_database.FAILED - 1)} --granularity daily"
    )
    assert "4 due windows missing in 1 job" in page.inner_text("#health-sub")
    assert "5 problems" not in page.inner_text("#fresh")
    assert "4 problems" in page.inner_text("#fresh")


def test_healthy_orgs_are_one_row(view: Open, site: Site) -> None:
    """An org with trouble has a row for each job, a healthy one a single row; each strip is described in words."""
    page = view(site, "health")
    shown = page.eval_on_selector_all(".strip", "all => all.map(each => [each.dataset.org, each.dataset.job])")
    assert shown == [["acme", "daily"], ["acme", "hourly"], ["globex", ""]]
    assert "1 day failed" in (page.get_attribute(".strip[data-job=daily] svg", "aria-label") or "")
    assert "4 days missing" in page.inner_text(".strip[data-job=daily]")


def test_a_day_beside_the_click(view: Open, site: Site) -> None:
    """A click shows windows, the last error, restatements and the command; Escape closes it, Back opens it."""
    page = opened(view, site)
    page.click(cell(sample_database.FAILED))
    page.wait_for_selector("#day-title")
    assert sample_database.TRUNCATED in page.inner_text("#day")
    assert "4 attempts" in page.inner_text("#day")
    assert "flow-outcomes backfill --org acme" in page.inner_text("#day code")
    page.click(cell(sample_database.RESTATED))
    page.wait_for_selector("#day h3:has-text('2 restatements')")
    for name, old, new in site.rows("SELECT outcome_name, old_count, new_count FROM flow_outcomes.restatement"):
        assert f"{name} {old} → {'null' if new is None else new}" in page.inner_text("#day")
    page.keyboard.press("Escape")
    page.wait_for_selector("#day", state="detached")
    page.go_back()
    page.wait_for_selector("#day h3:has-text('2 restatements')")


def test_by_keyboard(view: Open, site: Site) -> None:
    """Arrow keys move through the calendar, Enter opens a day, Escape closes it and returns."""
    page = opened(view, site)
    page.focus(cell(sample_database.FAILED))
    for _ in range(sample_database.FAILED, sample_database.DOUBTED):
        page.keyboard.press("ArrowUp")
    at = "el => el.ownerDocument.activeElement.dataset.day"
    body = page.locator("body")
    assert body.evaluate(at) == day(sample_database.DOUBTED)
    page.keyboard.press("Enter")
    page.wait_for_selector("#day-title:focus")
    assert "empty response" in page.inner_text("#day")
    page.keyboard.press("Escape")
    page.wait_for_selector("#day", state="detached")


def test_live_without_a_reload(view: Open, site: Site) -> None:
    """A completed window and a restatement appear within seconds without a reload."""
    page = opened(view, site)
    page.locator("body").evaluate("el => { el.dataset.mine = 'kept'; }")
    site.rows(
        "UPDATE flow_outcomes.extraction_window SET state = 'complete', last_error = NULL, completed_at = now()"
        " WHERE org = 'acme' AND state = 'failed'"
    )
    site.rows("INSERT INTO flow_outcomes.revision VALUES ('acme', 3, now())")
    site.rows(
        "INSERT INTO flow_outcomes.restated SELECT 'acme', 3, 'daily', %s, now(), name, 7, 1234567"
        " FROM unnest('{SelfServed,Transferred}'::text[]) name",
        FLOW,
    )
    page.wait_for_selector(f"{cell(sample_database.FAILED)}[data-state=C]")
    page.wait_for_selector("#health-sub:has-text('3 due windows missing')")
    page.wait_for_selector("#fresh:has-text('figures restated today')")
    assert page.get_attribute("body", "data-mine") == "kept"


def test_the_state_of_an_org(view: Open, site: Site) -> None:
    """Queue, breaker, Retry-After and owner, in the opened row; events as sentences in the org's time zone."""
    page = opened(view, site)
    assert "3 scans in flight, 7 waiting" in page.inner_text("#opened")
    page = view(site, "health?open=globex")
    facts = page.inner_text("#opened")
    assert "rate-limited for" in facts
    assert "open until" in facts
    assert "another process: host:2" in facts
    events = page.inner_text("#timeline")
    assert "the API limits the rate" in events
    assert "['" not in events
    assert "at Mon 2 Mar" in events  # of a globex in Berlin
    assert "Self Service is now SelfServed in 1 flow" in events


def test_the_export(view: Open, site: Site) -> None:
    """A line has the newest export's number and age; a failure has its reason, and shows on every view."""
    page = opened(view, site)
    text = f"Export to {sample_database.WAREHOUSE}: number 12, "
    page.wait_for_selector(f"#health-export:has-text('{text}')")
    assert " min old" in page.inner_text("#health-export")
    site.rows("UPDATE flow_outcomes.export_lease SET failed_at = now(), last_error = %s", HOSTILE)
    page.wait_for_selector("#health-export .bad:has-text('s ago: <img src=x')")
    assert page.inner_text("#health-export").startswith(text)
    page.wait_for_selector("#fresh a:has-text('export failed')")
    assert page.locator("main img").count() == 0


def test_hostile_names_are_text(view: Open, site: Site) -> None:
    """A name with markup is shown as text in a day's restatements."""
    page = opened(view, site, sample_database.RESTATED)
    assert HOSTILE in page.inner_text("#day")
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessible(view: Open, site: Site, scheme: str, width: int) -> None:
    """Axe finds nothing against WCAG 2.2 AA, nothing is wider than the screen, the newest days are visible."""
    page = opened(
        view, site, sample_database.FAILED, color_scheme=scheme, viewport={"width": width, "height": 844}
    )
    assert violations(page) == []
    assert page.locator("html").evaluate("el => el.scrollWidth") <= width
    box = page.locator(cell(1)).bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= width


def test_the_newest_hour_is_complete(view: Open, site: Site) -> None:
    """What a row says fits its place, with the hour of an hourly job, beside one row's problems."""
    page = view(site, "health")
    said = page.locator(".strip[data-job=hourly] .said")
    assert said.inner_text().startswith("through ")
    assert page.eval_on_selector_all(".said", "all => all.every(each => each.scrollWidth <= each.clientWidth)")

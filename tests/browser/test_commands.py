"""The command that adds a suggested alias, as it is copied into a shell."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from service.cli.parser import parse
from tests.browser.conftest import Open, Site, serving, violations
from tests.support import sample_database
from tests.support.planted_renames import plant, store

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = (
    "Paid",
    "Transferred to queue",
    "-h",
    "--",
    "--flow=x",
    "it's",
    'a "b" $(touch x) `touch y` $HOME \\ \\n !! * ? ~ # ; & | < > %s %%',
    "two\nlines",
    "ends with a line\n",
    "\x03interrupts; touch z\n and goes on",
    "bell\x07, escape\x1b[2J, tab\t, %d, it's \\033",
    "Bezahlt ✓ 已付 \U0001f4b6 \u202e",
    "\x85next line",
    " ",
    "a,b@c:d/e.f+g",
)


def commands(page: Page, names: tuple[str, ...]) -> list[str]:
    """The page's own commands, with each name as the flow, the old and the new name."""
    script = """async names => {
        const { addAlias } = await import(new URL('static/shell.js', location.href));
        return names.map(one => addAlias({ org: 'acme', flow_id: one, old_name: one, new_name: one }));
    }"""
    made: list[str] = page.evaluate(script, list(names))
    return made


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_name_survives_the_shell(view: Open, site: Site, shell: str) -> None:
    """The program gets each name to the letter, as a value or an operand and never as an option."""
    for name, command in zip(NAMES, commands(view(site, "health"), NAMES), strict=True):
        script = command.replace("flow-outcomes", "printf '%s\\0'", 1)
        words = subprocess.run([shell, "-c", script], capture_output=True, check=True).stdout.decode().split("\0")
        parsed = parse(["alias", "add", "--config=x", *words[2:-1]])
        assert (parsed.org, parsed.flow, parsed.old, parsed.new) == ("acme", name, name, name), command


def test_no_character_acts_on_the_terminal(view: Open, site: Site) -> None:
    """A pasted command has no control character but line breaks within quotes."""
    harmful = [name for name in NAMES if re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", name)]
    assert len(harmful) == 3
    for command in commands(view(site, "health"), tuple(harmful)):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", command), command


def test_a_suggestion_and_its_command(view: Open, database: str) -> None:
    """The flow and the health show the database's suggestions, each with the command that adds the alias."""
    store(database, {"acme": plant("daily", 7001)})
    with serving(database, sample_database.config(database)) as site:
        suggested = site.rows("SELECT flow_id, old_name, new_name FROM flow_outcomes.alias_suggestion")
        assert suggested
        flow = suggested[0][0]
        for path, expected in (
            ("health", suggested),
            (f"flow?org=acme&flow={flow}", [each for each in suggested if each[0] == flow]),
        ):
            page = view(site, path)
            page.wait_for_selector("section[aria-label='Suggested alias']")
            texts = page.locator("section[aria-label='Suggested alias'] code").all_text_contents()
            given = [parse(["alias", "add", "--config=x", *shlex.split(text)[3:]]) for text in texts]
            assert {(each.flow, each.old, each.new) for each in given} == set(expected)
            assert re.search(
                r"The same outcome\? Confidence \d+ %\.\s+\d+ days until \w{3} \d+ \w+, [\d.,]+ a day;"
                r" \d+ days from \w{3} \d+ \w+, [\d.,]+ a day\.",
                page.locator("section[aria-label='Suggested alias']").first.inner_text(),
            )
            page.emulate_media(color_scheme="dark")
            assert violations(page) == []
            if path == "health":
                assert page.locator("#suggestions > section").count() == min(3, len(expected))
                assert (
                    page.locator("#suggestions a").first.get_attribute("href")
                    == f"flow?org=acme&flow={given[0].flow}"
                )

"""tests/mutations.md against the code and the tests."""

from __future__ import annotations

import re

import pytest

from tests.support.documents import ROOT

TEXT = (ROOT / "tests" / "mutations.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in TEXT.splitlines() if "`" in line][1:]
TESTS = "".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
FOLDERS = ("service", "migrations", "")


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def read(path: str) -> str:
    """The text of a file of the service, a migration, or a file of the root."""
    return next((ROOT / folder / path).read_text() for folder in FOLDERS if (ROOT / folder / path).is_file())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_protection_exists(row: list[str]) -> None:
    """Each file that a row names exists and contains the names that the row quotes."""
    paths = [name for name in quoted(row[1]) if re.search(r"\.(py|sql|txt)$", name)]
    text = "".join(read(path) for path in paths)
    assert paths
    assert [name for name in quoted(row[1]) if name not in paths and name.removesuffix("…)") not in text] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_test_exists(row: list[str]) -> None:
    """Each test that a row names exists."""
    names = [name for name in quoted(row[2]) if name.startswith("test_")]
    assert names
    assert [name for name in names if f"def {name}(" not in TESTS] == []

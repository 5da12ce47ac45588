"""ARCHITECTURE.md against the code: the doors of its rooms, and the functions of its walk."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.support.documents import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text()
SERVICE = ROOT / "service"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS: list[str] = CONTRACTS[0]["layers"]


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def definitions(module: Path) -> set[str]:
    """The functions and classes of a module, and the methods of its classes as Class.method."""
    found: set[str] = set()
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef):
            members = [each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))]
            found |= {node.name, *(f"{node.name}.{each.name}" for each in members)}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
    return found


def layer(module: str) -> int:
    """The layer of a module's room, counted from the top."""
    name = module.partition("/")[0].removesuffix(".py")
    [place] = [place for place, layer in enumerate(LAYERS) if name in layer.split(" | ")]
    return place


WALK = rows("One window, from the timer to the row")


@pytest.mark.parametrize("cells", rows("Rooms"), ids=lambda cells: cells[0])
def test_a_room_has_its_door(cells: list[str]) -> None:
    """Each room of the table is a package, whose `__init__` contains every name of its door."""
    [name] = code(cells[0])
    init = SERVICE / name / "__init__.py"
    text = init.read_text()
    assert [each for each in code(cells[2]) if not re.search(rf"\b{each}\b", text)] == []


def test_every_room_is_listed() -> None:
    """The table has every package of service/, and those inside postgres."""
    packages = {str(init.parent.relative_to(SERVICE)) for init in SERVICE.glob("*/__init__.py")}
    inner = {str(init.parent.relative_to(SERVICE)) for init in (SERVICE / "postgres").glob("*/__init__.py")}
    assert {code(cells[0])[0] for cells in rows("Rooms")} == packages | inner


def test_the_walk_names_functions_that_exist() -> None:
    """Each step of the walk names a module and functions or methods that it defines."""
    assert len(WALK) > 10
    for _, _, module, names, _ in WALK:
        [path] = code(module)
        defined = definitions(SERVICE / path)
        assert [name for name in code(names) if name not in defined] == [], path


def test_the_walk_goes_forward() -> None:
    """Each step is called by an earlier one, in the same room or in one that may import it."""
    layers = {number: layer(code(module)[0]) for number, _, module, _, _ in WALK}
    numbers = list(layers)
    for number, caller, _, _, _ in WALK[1:]:
        assert numbers.index(caller) < numbers.index(number)
        assert layers[caller] <= layers[number], number

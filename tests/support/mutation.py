"""Pages as they come, and what becomes of them on a bad day: in their bytes, in their tree, or both."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63 - 1,
    2**63,
    10**400,
    1e308,
    -0.0,
    0.5,
    145.0,
    "",
    "145",
    "\0",
    "\ud800",
    "x" * 513,
    "é" * 257,
    "'; DROP TABLE flow_outcomes.org; --",
    "\u202eevil",
    "\x1b[2J",
    [],
    {},
    [[]],
    {"": {}},
    {"count": 1},
    "2024-01-01T00:00:00.000Z",
    "2024-01-01T00:00:00.000Z/2024-01-02T00:00:00.000Z",
    "0001-01-01T00:00:00Z/9999-12-31T23:59:59Z",
    "2024-01-01T00:00:00.000Z/2024-01-01T00:00:00.000Z",
    "2024-13-45T99:99:99Z/x",
]
_SNIPPETS = [b"NaN", b"Infinity", b"1e999", b"\xff", b"\xc3\x28", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]"]
_SNIPPETS += [b'"', b",", b":", b"null", b"\\", b"[" * 2000, b"9" * 5000, b"\xef\xbb\xbf", b"\x00", b" " * 100]


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - a JSON tree
    """Every place of a tree: the container and the key in it."""
    items = (
        list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    )
    for key, value in items:
        yield tree, key
        yield from _places(value)


def mutated(page: Any, chance: random.Random) -> bytes:  # noqa: ANN401 - a JSON tree
    """The page after one to four accidents."""
    tree = copy.deepcopy(page)
    accidents = chance.randint(1, 4)
    in_bytes = chance.random() < 0.4
    for _ in range(0 if in_bytes else accidents):
        _in_the_tree(tree, chance)
    text = json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode(errors="surrogatepass")
    for _ in range(accidents if in_bytes else chance.choice((0, 0, 1))):
        text = _in_the_bytes(text, chance)
    return text


def _in_the_tree(tree: Any, chance: random.Random) -> None:  # noqa: ANN401 - a JSON tree
    places = list(_places(tree))
    if not places:
        return
    container, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[chance.choice([str(each) for each in HOSTILE[11:20]])] = container.pop(key)
        case 2 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case 3:
            other, there = chance.choice(places)
            if other is not container or there != key:
                container[key] = copy.deepcopy(other[there])
        case _:
            container[key] = copy.deepcopy(chance.choice(HOSTILE))


def _in_the_bytes(text: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(text) + 1)
    to = min(len(text), at + chance.choice((1, 1, 1, 4, 40, 400)))
    match chance.randrange(5):
        case 0:
            return text[:at] + text[to:]
        case 1:
            return text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]
        case 2:
            return text[:at] + chance.choice(_SNIPPETS) + text[at:]
        case 3:
            return text[:at] + text[at:to] * 2 + text[to:]
        case _:
            return text[:at]

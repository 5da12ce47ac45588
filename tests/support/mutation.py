"""Random mutations of pages: of their bytes, their JSON tree, or both."""

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


def _locations(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - a JSON tree
    """Yield every location of a tree: a container and a key in it."""
    items = (
        list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    )
    for key, value in items:
        yield tree, key
        yield from _locations(value)


def mutate(page: Any, rng: random.Random) -> bytes:  # noqa: ANN401 - a JSON tree
    """Return the JSON text of a page after one to four mutations."""
    tree = copy.deepcopy(page)
    mutations = rng.randint(1, 4)
    in_bytes = rng.random() < 0.4
    for _ in range(0 if in_bytes else mutations):
        _mutate_tree(tree, rng)
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    for _ in range(mutations if in_bytes else rng.choice((0, 0, 1))):
        text = _mutate_bytes(text, rng)
    return text


def _mutate_tree(tree: Any, rng: random.Random) -> None:  # noqa: ANN401 - a JSON tree
    locations = list(_locations(tree))
    if not locations:
        return
    container, key = rng.choice(locations)
    match rng.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[rng.choice([str(each) for each in HOSTILE[11:20]])] = container.pop(key)
        case 2 if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        case 3:
            other, other_key = rng.choice(locations)
            if other is not container or other_key != key:
                container[key] = copy.deepcopy(other[other_key])
        case _:
            container[key] = copy.deepcopy(rng.choice(HOSTILE))


def _mutate_bytes(text: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    to = min(len(text), at + rng.choice((1, 1, 1, 4, 40, 400)))
    match rng.randrange(5):
        case 0:
            return text[:at] + text[to:]
        case 1:
            return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        case 2:
            return text[:at] + rng.choice(_SNIPPETS) + text[at:]
        case 3:
            return text[:at] + text[at:to] * 2 + text[to:]
        case _:
            return text[:at]

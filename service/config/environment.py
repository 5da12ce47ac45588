"""Environment variables laid over the tree of the file.

``FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE`` is ``orgs.acme.page_size``: a prefix, then the keys, joined by two
underscores. A name that the file already holds is recognised whole, whatever underscores and dashes are in it.
Sections and lists are written as JSON. pydantic-settings is not used for this: it gives up at the first value that
is no JSON, reads a secret made of figures as a number, and passes over names that it does not know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from service.config.document import Tree
from service.config.values import FromEnvironment
from service.errors import Fault

PREFIX = "FLOW_OUTCOMES_"

# What Kubernetes sets in every pod beside a service that is called flow-outcomes.
_SERVICE_LINK = re.compile(r"(SERVICE_(HOST|PORT)(_\w+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")

# The environment wins: naming one of a pair takes the place of the other in the file.
_PAIRS = (("client_secret", "client_secret_file"), ("dsn", "embedded"))

Path = tuple[str, ...]


@dataclass
class Overlay:
    """What the environment says.

    Attributes:
        values: by path, shortest path first.
        origin: the variable that each path came from.
        faults: variables that name no setting, or are no JSON where JSON is wanted.
    """

    values: dict[Path, Any] = field(default_factory=dict)
    origin: dict[Path, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def upon(self, tree: Tree) -> Tree:
        """A new tree: the file's, with the environment's values in place of its own."""
        merged: Tree = dict(tree)
        for path, value in self.values.items():
            at = merged
            for key in path[:-1]:
                below = at.get(key)
                at[key] = dict(below) if isinstance(below, dict) else {}
                at = at[key]
            last = path[-1]
            at[last] = _deep(at.get(last), value)
            for pair in _PAIRS:
                other = pair[last == pair[0]]
                if last in pair and (*path[:-1], other) not in self.values:
                    at.pop(other, None)
        return merged


def read_environment(environ: Mapping[str, str], root: type[BaseModel], tree: Tree) -> Overlay:
    """Every variable with the program's prefix, as values of ``root``'s keys; ``tree`` gives the known names."""
    overlay = Overlay()
    found: list[tuple[Path, str, bool]] = []
    for variable in sorted(environ):
        rest = variable.removeprefix(PREFIX)
        if rest == variable or _SERVICE_LINK.fullmatch(rest):
            continue
        path, section, known = _path(rest.lower(), root, tree)
        if path is None:
            overlay.faults.append(
                Fault(variable, f"names no setting; here it could go on with {', '.join(known)}")
            )
        else:
            found.append((path, variable, section))
    for path, variable, section in sorted(found, key=lambda each: (len(each[0]), each[1])):
        value: object = FromEnvironment(environ[variable])
        if section:
            try:
                value = json.loads(environ[variable])
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                overlay.faults.append(Fault(".".join(path), f"must be a JSON object (set by {variable})"))
                continue
        overlay.values[path] = value
        overlay.origin[path] = variable
    return overlay


def _path(rest: str, wanted: object, tree: object) -> tuple[Path | None, bool, list[str]]:
    """The keys that ``rest`` spells, whether they lead to a section, and what else would have been known."""
    keys = _keys(wanted)
    if keys is None:
        return (None if rest else ()), False, ["nothing"]
    if not rest:
        return (), True, []
    names = [str(key) for key in tree] if isinstance(tree, dict) else []
    known: Iterable[str] = names if keys.get("*") else keys
    for name in sorted(known, key=len, reverse=True):
        spelled = name.replace("-", "_")
        for spelling in (name, spelled):
            if rest == spelling or rest.startswith(f"{spelling}__"):
                below = tree.get(name) if isinstance(tree, dict) else None
                return _under(name, rest[len(spelling) + 2 :], keys.get(name, keys.get("*")), below)
    if keys.get("*"):
        name, _, left = rest.partition("__")
        return _under(name, left, keys["*"], None)
    return None, False, [f"{key.upper()}" for key in keys]


def _under(name: str, rest: str, wanted: object, tree: object) -> tuple[Path | None, bool, list[str]]:
    path, section, known = _path(rest, wanted, tree)
    return (None if path is None else (name, *path)), section, known


def _keys(wanted: object) -> dict[str, Any] | None:
    """The keys of a section with what each leads to, ``*`` for any name; None where ``wanted`` is a value."""
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        return {info.alias or name: info.annotation for name, info in wanted.model_fields.items()}
    if get_origin(wanted) is Mapping:
        return {"*": get_args(wanted)[1]}
    return None


def _deep(old: object, new: object) -> object:
    """``new`` over ``old``; two sections are merged key by key."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _deep(old.get(key), value) for key, value in new.items()}}

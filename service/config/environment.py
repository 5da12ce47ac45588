"""Environment variables, which override the file.

``FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE`` is ``orgs.acme.page_size``: a prefix, then the keys, joined by two
underscores. An org, job or ad hoc entry of the file is found by its complete name, whatever underscores and dashes
it has. Sections and lists are JSON. pydantic-settings is not used: it stops at the first value that is not JSON,
reads a numeric secret as a number, and ignores unknown names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum, auto
from types import UnionType
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from service.config.document import Tree
from service.config.values import FromEnvironment
from service.config.values import optional_section as optional_value
from service.errors import Fault

PREFIX = "FLOW_OUTCOMES_"

# These have the prefix and are no settings: the file's own path, and the folders of compose.yaml.
_RESERVED = frozenset({"FLOW_OUTCOMES_CONFIG", "FLOW_OUTCOMES_SECRETS"})

# Kubernetes sets these in every pod for each service of the namespace, such as flow-outcomes or flow-outcomes-db.
_SERVICE_LINK = re.compile(
    r"(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)\Z"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

# A variable for one key of a pair removes the other key of the file.
_PAIRS = (("client_secret", "client_secret_file"), ("dsn", "embedded"))

Path = tuple[str, ...]


class _Kind(Enum):
    """What a variable sets."""

    VALUE = auto()
    SECTION = auto()
    OPTIONAL = auto()
    """A section or null."""


@dataclass
class Overlay:
    """The values of the environment.

    Attributes:
        values: by path, shortest path first.
        origin: the variable of each path.
        faults: variables that name no setting, or are not JSON where JSON is expected.
    """

    values: dict[Path, Any] = field(default_factory=dict)
    origin: dict[Path, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def apply(self, tree: Tree) -> Tree:
        """A copy of the file's tree with the environment's values."""
        merged: Tree = dict(tree)
        for path, value in self.values.items():
            at = merged
            for key in path[:-1]:
                child = at.get(key)
                at[key] = dict(child) if isinstance(child, dict) else {}
                at = at[key]
            last = path[-1]
            at[last] = _merge(at.get(last), value)
            for pair in _PAIRS:
                other = pair[last == pair[0]]
                if last in pair and (*path[:-1], other) not in self.values:
                    at.pop(other, None)
        return merged


def read_environment(environ: Mapping[str, str], root: type[BaseModel], tree: Tree) -> Overlay:
    """Every variable with the program's prefix, as values of the configuration's keys.

    Args:
        environ: the environment variables.
        root: the model of the configuration.
        tree: the file, for the names of its orgs, jobs and ad hoc entries.
    """
    overlay = Overlay()
    settings: list[tuple[Path, str, _Kind]] = []
    for variable in sorted(environ):
        rest = variable.removeprefix(PREFIX)
        if rest == variable or variable in _RESERVED or _is_service_link(variable, environ[variable]):
            continue
        path, kind, known = _resolve(rest.lower(), root, tree)
        if path is None:
            similar = get_close_matches(variable.rpartition("__")[2].removeprefix(PREFIX), known, n=1)
            meant = f"did you mean {similar[0]}? " if similar else ""
            fault = f"is not a setting; {meant}known at this level: {', '.join(known)}"
            overlay.faults.append(Fault(variable, fault))
        else:
            settings.append((path, variable, kind))
    for path, variable, kind in sorted(settings, key=lambda each: (len(each[0]), each[1])):
        value: object = FromEnvironment(environ[variable])
        if kind is _Kind.OPTIONAL:
            given = optional_value(value)
            value = given if given is None or isinstance(given, dict) else value
        elif kind is _Kind.SECTION:
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


def _is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes set the variable; a setting below the root has two underscores in its name."""
    if "__" in variable:
        return False
    if variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value):
        return True
    return _SERVICE_LINK.search(variable) is not None


def _resolve(rest: str, model: object, tree: object) -> tuple[Path | None, _Kind, list[str]]:
    """The path that ``rest`` names, or None; its kind; the keys known where ``rest`` has none."""
    keys = _keys(model)
    if keys is None:
        return (None if rest else ()), _Kind.VALUE, ["none"]
    if not rest:
        return (), _Kind.OPTIONAL if optional_section(model) else _Kind.SECTION, []
    names = [str(key) for key in tree] if isinstance(tree, dict) else []
    known: Iterable[str] = names if keys.get("*") else keys
    for name in sorted(known, key=len, reverse=True):
        spelled = name.replace("-", "_")
        for spelling in (name, spelled):
            if rest == spelling or rest.startswith(f"{spelling}__"):
                child = tree.get(name) if isinstance(tree, dict) else None
                return _resolve_under(name, rest[len(spelling) + 2 :], keys.get(name, keys.get("*")), child)
    if keys.get("*"):
        name, _, rest = rest.partition("__")
        return _resolve_under(name, rest, keys["*"], None)
    return None, _Kind.VALUE, [key.upper() for key in keys]


def _resolve_under(name: str, rest: str, model: object, tree: object) -> tuple[Path | None, _Kind, list[str]]:
    path, kind, known = _resolve(rest, model, tree)
    return (None if path is None else (name, *path)), kind, known


def _keys(model: object) -> dict[str, Any] | None:
    """The keys of a section with their models, ``*`` for any name; None where the model is a value."""
    model = optional_section(model) or model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    if get_origin(model) is Mapping:
        return {"*": get_args(model)[1]}
    return None


def optional_section(model: object) -> type[BaseModel] | None:
    """The section of a key that is a section or null; None for any other model."""
    parts = get_args(model) if get_origin(model) is UnionType else ()
    sections = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    return sections[0] if sections else None


def _merge(old: object, new: object) -> object:
    """``new`` instead of ``old``; two sections are merged key by key."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}

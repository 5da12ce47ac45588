"""Loads the configuration, or reports every fault of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from service.config.document import Tree, read_document
from service.config.environment import Overlay, optional_section, read_environment
from service.config.rules import faults_between
from service.config.sections import AdHoc, Breaker, Config, DeepLookback, Job, Org
from service.errors import ConfigError, Fault

_MESSAGES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text; put numbers, dates, yes and no in quotes",
    "string_too_long": "must have at most 63 characters",
    "tuple_type": "must be a list",
    "model_type": "must be a section of keys",
    "model_attributes_type": "must be a section of keys",
    "mapping_type": "must be a section of names",
    "dict_type": "must be a section of names",
    "invalid_key": "must be text; put the name in quotes",
}
_BOUNDS = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}


def load_config(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Load the configuration; environment variables override the file.

    Relative paths are relative to the file's folder, those in environment variables to the current directory.

    Args:
        path: the YAML file.
        environ: the environment variables; ``os.environ`` by default.

    Raises:
        ConfigError: with every fault; no fault repeats a value, which may be a secret.
    """
    tree, faults = read_document(path)
    if faults and not tree:
        raise ConfigError(faults)
    _resolve_paths(tree, path.parent)
    overlay = read_environment(_process_environment() if environ is None else environ, Config, tree)
    return _validate(overlay.apply(tree), [*faults, *overlay.faults], overlay, _environment_faults)


def _process_environment() -> dict[str, str]:
    """The environment variables, read as UTF-8 whatever the locale is."""
    return {name: os.fsencode(value).decode("utf-8", "surrogateescape") for name, value in os.environ.items()}


def config_from(tree: Tree) -> Config:
    """The configuration of a tree, without the environment.

    Raises:
        ConfigError: with every fault.
    """
    return _validate(tree, [], Overlay())


def _environment_faults(config: Config) -> list[Fault]:
    """The faults of the environment's proxies, for orgs whose servers would be reached through them."""
    faults: list[Fault] = []
    for org in config.orgs.values():
        try:
            _ = org.proxies
        except ConfigError as error:
            faults += error.faults
    return faults


def _validate(
    tree: Tree, faults: list[Fault], overlay: Overlay, more_faults: Callable[[Config], list[Fault]] | None = None
) -> Config:
    tree = _fill_empty_sections(tree)
    config: Config | None = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        # The input may be a secret.
        errors = error.errors(include_url=False, include_input=False)
        faults += [_fault(each) for each in errors if each["type"] != "default_factory_not_called"]
    faults += faults_between(tree)
    if config is not None and more_faults is not None:
        faults += more_faults(config)
    if config is None or faults:
        raise ConfigError(_sort(faults, overlay))
    return config


def _resolve_paths(tree: Tree, folder: Path) -> None:
    """Make the file's relative paths relative to its folder."""
    orgs = tree.get("orgs")
    sections = [(tree.get("database"), "embedded")]
    for org in orgs.values() if isinstance(orgs, dict) else ():
        sections += [(org, "client_secret_file"), (org, "ca_file")]
    for section, key in sections:
        if isinstance(section, dict) and isinstance(section.get(key), str) and section[key]:
            given = section[key]
            section[key] = given if given.startswith("~") else str(folder / given)


def _fill_empty_sections(tree: Tree) -> Tree:
    """A copy of the tree in which a section without keys has its defaults."""
    tree = {
        key: {} if value is None else value for key, value in tree.items() if key != "export" or value is not None
    }
    tree.setdefault("database", {})
    tree.setdefault("orgs", {})
    for section in ("orgs", "jobs", "ad_hoc"):
        named = tree.get(section)
        if isinstance(named, dict):
            tree[section] = {name: {} if value is None else value for name, value in named.items()}
    orgs = tree["orgs"]
    for name, org in orgs.items() if isinstance(orgs, dict) else ():
        if isinstance(org, dict) and "breaker" in org and org["breaker"] is None:
            orgs[name] = {key: value for key, value in org.items() if key != "breaker"}
    return tree


def _fault(error: Mapping[str, Any]) -> Fault:
    """A validation error as a fault."""
    where = [str(part) for part in error["loc"]]
    if where and where[-1] == "[key]":
        return Fault(".".join(where[:-1]), _name_fault(error["type"], where))
    return Fault(".".join(where), _message(error, where))


def _message(error: Mapping[str, Any], where: list[str]) -> str:
    kind: str = error["type"]
    context: Mapping[str, Any] = error.get("ctx", {})
    message = _MESSAGES.get(kind, str(error["msg"]))
    if kind == "extra_forbidden":
        message = _unknown_key(where)
    elif kind == "value_error":
        message = str(context["error"])
    elif kind == "literal_error":
        message = f"must be {context['expected']}"
    elif kind in _BOUNDS:
        message = f"must be {_BOUNDS[kind]} {next(iter(context.values()))}"
    return message


def _name_fault(kind: str, where: list[str]) -> str:
    if kind in {"string_type", "string_too_long"}:
        return _MESSAGES[kind]
    dashes = "" if where[0] != "ad_hoc" else ", dashes"
    return f"a name must start with a lowercase letter; then lowercase letters, digits{dashes} and underscores"


def _unknown_key(where: list[str]) -> str:
    section: type[BaseModel] = Config
    named: dict[str, type[BaseModel]] = {"orgs": Org, "jobs": Job, "ad_hoc": AdHoc}
    if len(where) > 1:
        field = Config.model_fields[where[0]].annotation
        section = named.get(where[0]) or optional_section(field) or field  # type: ignore[assignment]
        nested: dict[str, type[BaseModel]] = {"breaker": Breaker, "deep_lookback": DeepLookback}
        if len(where) > 3 and where[2] in nested:  # noqa: PLR2004 - orgs.NAME.breaker.KEY
            section = nested[where[2]]
    known = [info.alias or name for name, info in section.model_fields.items()]
    similar = get_close_matches(where[-1], known, n=1)
    return (
        f"unknown key; did you mean {similar[0]}?" if similar else f"unknown key; known keys: {', '.join(known)}"
    )


def _sort(faults: list[Fault], overlay: Overlay) -> list[Fault]:
    """Each fault once, on one line, ordered by key, with the variable that set the value."""
    unique: dict[Fault, None] = {}
    for key, message in faults:
        source = overlay.origin.get(tuple(key.split(".")))
        text = f"{message} (set by {source})" if source and source not in message else message
        unique[Fault(_line(key), _line(text))] = None
    return sorted(unique)


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)

"""A YAML file as a tree of plain values, with the faults of the file itself.

PyYAML's messages quote the file, which may contain a secret; a fault here names only line and column.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from service.config.file_content import read_bytes
from service.errors import Fault

Tree = dict[str, Any]
Constructor = Callable[["_Loader", yaml.ScalarNode], object]


class _Loader(yaml.SafeLoader):
    """YAML's plain types; an invalid number or date stays text, and fails validation under its key."""


def _text_if_invalid(construct: Callable[[_Loader, yaml.ScalarNode], object]) -> Constructor:
    def constructed(loader: _Loader, node: yaml.ScalarNode) -> object:
        try:
            return construct(loader, node)
        except (ValueError, OverflowError):
            return str(node.value)

    return constructed


for _tag in ("int", "float", "timestamp"):
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_tag}",
        _text_if_invalid(yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{_tag}"]),
    )


def read_document(path: Path) -> tuple[Tree, list[Fault]]:
    """The file's tree, empty where it cannot be read, and the file's faults: its syntax and duplicate keys."""
    file = str(path)
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return {}, [Fault(file, "file not found; give the path of the configuration file")]
    except OSError as error:
        return {}, [Fault(file, f"cannot be read: {error.strerror or type(error).__name__}")]
    tree, faults = _parse(content, file)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        return {}, [*faults, Fault(file, "must be a mapping of keys: database, http, log, orgs, jobs, ad_hoc")]
    return tree, faults


def _parse(content: bytes, file: str) -> tuple[object, list[Fault]]:
    faults: list[Fault] = []
    try:
        loader = _Loader(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, []
            faults = _duplicate_keys(node)
            if _has_cycle(node, set(), set()):
                return {}, [
                    *faults,
                    Fault(file, "has an alias to a section that contains it; write the section out"),
                ]
            return loader.construct_document(node), faults
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        fault = Fault(file, f"is not valid YAML{place}; quote text that starts with a special character")
    except yaml.YAMLError:
        fault = Fault(file, "is not valid YAML; it must be UTF-8 text without control characters")
    except RecursionError:
        fault = Fault(file, "is not valid YAML; it is nested too deeply")
    return {}, [*faults, fault]


def _has_cycle(node: yaml.Node, ancestors: set[int], checked: set[int]) -> bool:
    """Whether an alias in a node refers to the node itself or to one of its ancestors."""
    if id(node) in ancestors:
        return True
    if isinstance(node, yaml.ScalarNode) or id(node) in checked:
        return False
    children = (
        node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    )
    ancestors.add(id(node))
    cycle = any(_has_cycle(each, ancestors, checked) for each in children)
    ancestors.remove(id(node))
    checked.add(id(node))
    return cycle


def _duplicate_keys(root: yaml.Node) -> list[Fault]:
    """A fault for each key that occurs twice in one mapping."""
    faults: list[Fault] = []
    seen: set[int] = set()
    pending: list[tuple[str, yaml.Node]] = [("", root)]
    while pending:
        at, node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += [(f"{at}.{index}", item) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            place = f"{at}.{key.value}" if at else key.value
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                faults.append(Fault(place, f"duplicate key in lines {lines[key.value]} and {line}; keep one"))
            lines.setdefault(key.value, line)
            pending.append((place, value))
    return faults

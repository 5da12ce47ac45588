"""A YAML file as a tree of plain values, with what is wrong with it as a file.

PyYAML's own messages quote the file, and what is quoted may be a secret: here a fault names a line at most.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from service.errors import Fault

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML's plain types; a value that only looks like a number or a date stays text, and is judged later."""


def _or_text(construct: Any) -> Any:  # noqa: ANN401 - PyYAML's constructors are not typed
    def constructed(loader: _Loader, node: yaml.ScalarNode) -> Any:  # noqa: ANN401
        try:
            return construct(loader, node)
        except (ValueError, OverflowError):
            return node.value

    return constructed


for _tag in ("int", "float", "timestamp"):
    _Loader.add_constructor(
        f"tag:yaml.org,2002:{_tag}", _or_text(yaml.SafeLoader.yaml_constructors[f"tag:yaml.org,2002:{_tag}"])
    )


def read_document(path: Path) -> tuple[Tree, list[Fault]]:
    """The file's tree, empty where it cannot be read, and the file's faults: syntax, or a key given twice."""
    file = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}, [Fault(file, "no such file; give the path of the configuration in YAML")]
    except OSError as error:
        return {}, [Fault(file, f"cannot be read: {error.strerror or type(error).__name__}")]
    tree, faults = _parsed(content, file)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        return {}, [*faults, Fault(file, "must be a mapping of keys: database, http, log, orgs, jobs, ad_hoc")]
    return tree, faults


def _parsed(content: bytes, file: str) -> tuple[object, list[Fault]]:
    faults: list[Fault] = []
    try:
        loader = _Loader(content)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, []
            faults = _twice(node)
            if _endless(node, set(), set()):
                return {}, [*faults, Fault(file, "holds a section that contains itself; write it out")]
            return loader.construct_document(node), faults
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        fault = Fault(file, f"is no valid YAML{place}; text that begins with a special character needs quotes")
    except yaml.YAMLError:
        fault = Fault(file, "is no valid YAML: it must be text in UTF-8, without control characters")
    except RecursionError:
        fault = Fault(file, "is no valid YAML: nested too deeply")
    return {}, [*faults, fault]


def _endless(node: yaml.Node, above: set[int], sound: set[int]) -> bool:
    """Whether an alias leads from a node back to itself or to one above it."""
    if id(node) in above:
        return True
    if isinstance(node, yaml.ScalarNode) or id(node) in sound:
        return False
    below = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    above.add(id(node))
    endless = any(_endless(each, above, sound) for each in below)
    above.remove(id(node))
    sound.add(id(node))
    return endless


def _twice(root: yaml.Node) -> list[Fault]:
    """A fault for each key that one mapping holds twice."""
    faults: list[Fault] = []
    seen: set[int] = set()
    left: list[tuple[str, yaml.Node]] = [("", root)]
    while left:
        at, node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += [(f"{at}.{index}", item) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            place = f"{at}.{key.value}" if at else key.value
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                faults.append(Fault(place, f"is given twice, in lines {lines[key.value]} and {line}; keep one"))
            lines.setdefault(key.value, line)
            left.append((place, value))
    return faults

"""Parses the Dockerfile into stages of instructions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Instruction(NamedTuple):
    """One instruction, with continued lines joined."""

    word: str
    text: str

    def exec_form(self) -> list[str]:
        """Return the command of the exec form; raises ValueError for the shell form."""
        command: list[str] = json.loads(self.text)
        return command


def stages() -> list[list[Instruction]]:
    """Return the stages; each begins with its FROM, with the defaults of the arguments above it."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#")
    result: list[list[Instruction]] = []
    arguments: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            result.append([])
            rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest)
        if word == "ARG" and not result:  # above the first FROM, and for the FROM lines alone
            name, _, default = rest.strip().partition("=")
            arguments[name] = default
        elif word:
            result[-1].append(Instruction(word, re.sub(r"\s+", " ", rest.strip())))
    return result

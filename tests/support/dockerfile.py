"""The Dockerfile, read: its stages, each a list of instructions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    word: str
    text: str

    def exec_form(self) -> list[str]:
        """The command as a JSON array; raises ValueError where it is not written so."""
        command: list[str] = json.loads(self.text)
        return command


def stages() -> list[list[Instruction]]:
    """Each begins with its FROM."""
    text = "\n".join(line for line in (ROOT / "Dockerfile").read_text().splitlines() if line[:1] != "#")
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word:
            found[-1].append(Instruction(word, re.sub(r"\s+", " ", rest.strip())))
    return found

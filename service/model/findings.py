"""What a check finds, as the command ``check`` prints it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        subject: what was checked.
        state: how it ended; a check that was not tried is skipped.
        detail: what was found.
        fix: what to do about it; empty where nothing is to be done.
    """

    subject: str
    state: State
    detail: str
    fix: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return self.state is not State.FAILED

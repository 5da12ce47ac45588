"""What is measured of a flow, by which dimensions it can be split, and durations."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec


class Measure(StrEnum):
    """What is measured of a flow."""

    OUTCOMES = "outcomes"
    EXECUTIONS = "executions"
    MILESTONES = "milestones"


DIMENSIONS = (
    "direction",
    "divisionId",
    "dnis",
    "endingLanguage",
    "entryReason",
    "entryType",
    "flowType",
    "flowVersion",
    "mediaType",
    "messageType",
    "startingLanguage",
)
"""The API's dimensions by which figures can be split, sorted: no personal data, and few values each."""

NO_DIMENSIONS = "{}"
"""The dimensions of a series that is not split."""


class DurationStats(msgspec.Struct, gc=False):
    """The JSON values that the API reports for durations, in milliseconds, not validated; None where absent."""

    count: object
    sum: object = None
    min: object = None
    max: object = None


class Duration(NamedTuple):
    """Durations in milliseconds.

    Attributes:
        times: how many; -1 where what is reported is invalid.
        sum_ms: their sum.
        min_ms: the shortest; None where it is not reported.
        max_ms: the longest; None where it is not reported.
    """

    times: int
    sum_ms: int | None
    min_ms: int | None
    max_ms: int | None


INVALID_DURATION = Duration(-1, None, None, None)

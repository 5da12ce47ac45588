"""The values that the rooms pass to each other.

::

    spans     granularities, and spans of time
    measures  what is measured, and by which dimensions
    queries   what is requested of an API
    figures   what an API reports, as read and as stored
    windows   windows and scans
    findings  what a check finds
"""

from service.model.figures import (
    COUNT_MAX,
    NAME_BYTES_MAX,
    Entry,
    Figure,
    FlowBucket,
    NormalisedPage,
    OutcomeRow,
    Page,
    Reject,
    ValidEntry,
    ValidFigure,
)
from service.model.findings import Finding, State
from service.model.measures import DIMENSIONS, INVALID_DURATION, NO_DIMENSIONS, Duration, DurationStats, Measure
from service.model.queries import Query, QueryWidth, SplitHint
from service.model.spans import Granularity, Span, instant
from service.model.windows import Scan, Window

__all__ = [
    "COUNT_MAX",
    "DIMENSIONS",
    "INVALID_DURATION",
    "NAME_BYTES_MAX",
    "NO_DIMENSIONS",
    "Duration",
    "DurationStats",
    "Entry",
    "Figure",
    "Finding",
    "FlowBucket",
    "Granularity",
    "Measure",
    "NormalisedPage",
    "OutcomeRow",
    "Page",
    "Query",
    "QueryWidth",
    "Reject",
    "Scan",
    "Span",
    "SplitHint",
    "State",
    "ValidEntry",
    "ValidFigure",
    "Window",
    "instant",
]

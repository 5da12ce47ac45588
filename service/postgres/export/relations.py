"""The relations that are exported; a table in the warehouse is one entry of ``RELATIONS``."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Type(Enum):
    """The type of a column, as a warehouse has it."""

    TEXT = "string"
    INSTANT = "timestamptz"
    INTEGER = "long"
    REAL = "double"
    FLAG = "boolean"
    TEXT_MAP = "map<string, string>"


class Column(NamedTuple):
    """A column; ``source`` is its expression, where that is not its name."""

    name: str
    type: Type = Type.TEXT
    required: bool = False
    source: str = ""


class Relation(NamedTuple):
    """A relation, which has org and granularity, and is partitioned by these and by the UTC month of ``instant``.

    Attributes:
        name: of the view in this database and of the table in the warehouse.
        columns: in the view's order. An Iceberg field is known by its number, so an addition goes to the end.
        instant: the column whose month a row belongs to.
        order: the order of the rows in a file.
        changed: a query for the granularity and the instant of each row that changed after a revision ``since`` of
            an ``org``; of all rows where ``since`` is 0. Empty: the months are compared by a digest of their rows.
    """

    name: str
    columns: tuple[Column, ...]
    instant: str
    order: tuple[str, ...]
    changed: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(column.name for column in self.columns)


_ORG, _GRANULARITY = Column("org", required=True), Column("granularity", required=True)
_FLOW_ID = Column("flow_id", required=True)
_FLOW_NAME = Column("flow_name")
_BUCKET_START = Column("bucket_start", Type.INSTANT, required=True)
_BUCKET_END = Column("bucket_end", Type.INSTANT, required=True)

_DIMENSIONS = Column("dimensions", Type.TEXT_MAP, required=True)
_EXTRACTION_TIMESTAMP = Column("extraction_timestamp", Type.INSTANT)
_DURATIONS = tuple(Column(f"duration_{name}", Type.INTEGER) for name in ("count", "sum_ms", "min_ms", "max_ms"))
_BUCKET = ("flow_id", "bucket_start")


def _figures_changed(measure: str) -> str:
    """A query for the figures of a measure that changed, or whose names did."""
    return """
        -- stored or restated
        SELECT f.granularity, f.bucket_start AS instant FROM flow_outcomes.figure f
        WHERE f.org = %(org)s AND f.revision > %(since)s AND f.measure = '<measure>'
        UNION ALL
        -- restated or removed
        SELECT h.granularity, h.bucket_start FROM flow_outcomes.figure_history h
        WHERE h.org = %(org)s AND h.until_revision > %(since)s AND h.measure = '<measure>'
        UNION ALL
        -- of a renamed outcome or milestone
        SELECT f.granularity, f.bucket_start
        FROM flow_outcomes.series o
        JOIN flow_outcomes.figure f ON f.org = o.org AND f.series_no = o.series_no
        WHERE o.org = %(org)s AND o.revision > %(since)s AND f.measure = '<measure>'
        UNION ALL
        -- of a renamed flow
        SELECT f.granularity, f.bucket_start
        FROM flow_outcomes.flow fl
        JOIN flow_outcomes.series o ON o.org = fl.org AND o.flow_id = fl.flow_id
        JOIN flow_outcomes.figure f ON f.org = o.org AND f.series_no = o.series_no
        WHERE fl.org = %(org)s AND fl.revision > %(since)s AND f.measure = '<measure>'
    """.replace("<measure>", measure)


_RESTATED = """
    SELECT s.granularity, s.bucket_start AS instant FROM flow_outcomes.restated s
    WHERE s.org = %(org)s AND s.revision > %(since)s
    UNION ALL
    -- of a renamed flow
    SELECT s.granularity, s.bucket_start
    FROM flow_outcomes.flow fl
    JOIN flow_outcomes.restated s ON s.org = fl.org AND s.flow_id = fl.flow_id
    WHERE fl.org = %(org)s AND fl.revision > %(since)s
"""

FLOW_OUTCOME = Relation(
    "flow_outcome",
    (
        _ORG,
        _FLOW_ID,
        _FLOW_NAME,
        _GRANULARITY,
        _BUCKET_START,
        _BUCKET_END,
        Column("outcome_key", required=True),
        Column("outcome_name", required=True),
        Column("outcome_count", Type.INTEGER),
        Column("outcome_percentage", Type.REAL),
        Column("outcome_share", Type.REAL),
        _EXTRACTION_TIMESTAMP,
        Column("outcome_id"),
        Column("success_count", Type.INTEGER),
        Column("failure_count", Type.INTEGER),
        Column("success_rate", Type.REAL),
        *_DURATIONS,
    ),
    "bucket_start",
    (*_BUCKET, "outcome_name"),
    _figures_changed("outcomes"),
)

FLOW_OUTCOME_DETAIL = FLOW_OUTCOME._replace(
    name="flow_outcome_detail",
    columns=(*FLOW_OUTCOME.columns, _DIMENSIONS),
    order=(*_BUCKET, "outcome_name", "dimensions"),
)

FLOW_EXECUTION = Relation(
    "flow_execution",
    (
        _ORG,
        _FLOW_ID,
        _FLOW_NAME,
        _GRANULARITY,
        _BUCKET_START,
        _BUCKET_END,
        Column("exit_reason"),
        _DIMENSIONS,
        Column("metric", required=True),
        Column("execution_count", Type.INTEGER),
        *_DURATIONS,
        _EXTRACTION_TIMESTAMP,
    ),
    "bucket_start",
    (*_BUCKET, "metric", "exit_reason", "dimensions"),
    _figures_changed("executions"),
)

FLOW_MILESTONE = Relation(
    "flow_milestone",
    (
        _ORG,
        _FLOW_ID,
        _FLOW_NAME,
        _GRANULARITY,
        _BUCKET_START,
        _BUCKET_END,
        Column("milestone_id"),
        Column("milestone_name", required=True),
        _DIMENSIONS,
        Column("milestone_count", Type.INTEGER),
        Column("execution_count", Type.INTEGER),
        _EXTRACTION_TIMESTAMP,
    ),
    "bucket_start",
    (*_BUCKET, "milestone_id", "dimensions"),
    _figures_changed("milestones"),
)

RESTATEMENT = Relation(
    "restatement",
    (
        _ORG,
        _FLOW_ID,
        _FLOW_NAME,
        _GRANULARITY,
        _BUCKET_START,
        Column("outcome_name", required=True),
        Column("old_count", Type.INTEGER),
        Column("new_count", Type.INTEGER),
        Column("restated_at", Type.INSTANT, required=True),
    ),
    "bucket_start",
    ("flow_id", "bucket_start", "outcome_name", "restated_at"),
    _RESTATED,
)

COVERAGE = Relation(
    "coverage",
    (
        _ORG,
        Column("job"),
        Column("window_start", Type.INSTANT, required=True),
        Column("window_end", Type.INSTANT, required=True),
        _GRANULARITY,
        Column("complete", Type.FLAG, required=True),
        Column("complete_since", Type.INSTANT),
        Column("confirmed_at", Type.INSTANT),
        Column("state", required=True),
        Column("doubted", Type.FLAG, required=True),
        Column("last_error"),
        Column("restatements", Type.INTEGER),
        # numeric in the view: a sum of counts
        Column("restated_by", Type.INTEGER, source="least(restated_by, 9223372036854775807)::bigint"),
        Column("last_restated_at", Type.INSTANT),
        Column("measure", required=True),
    ),
    "window_start",
    ("job", "measure", "window_start", "window_end"),
)

RELATIONS: tuple[Relation, ...] = (
    FLOW_OUTCOME,
    FLOW_OUTCOME_DETAIL,
    FLOW_EXECUTION,
    FLOW_MILESTONE,
    RESTATEMENT,
    COVERAGE,
)

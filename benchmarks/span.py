"""The query that every contender sends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any


def days_until_now(days: int) -> tuple[datetime, datetime]:
    """Return the span of ``days`` days up to the last settled midnight."""
    end = (datetime.now(UTC) - timedelta(hours=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=days), end


def query(days: int) -> dict[str, Any]:
    """Return the query of these days, for page one."""
    begin, end = days_until_now(days)
    return {
        "queryType": "routing/engagement",
        "dateFrom": f"{begin:%Y-%m-%dT%H:%M:%S.000Z}",
        "dateTo": f"{end:%Y-%m-%dT%H:%M:%S.000Z}",
        "metrics": ["flow-outcomes"],
        "filters": [],
        "groupBy": ["flow-id"],
        "timeGroup": "daily",
        "limit": 100,
    }

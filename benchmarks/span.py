"""What every contender asks for: so many days, one query."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any


def days_until_now(days: int) -> tuple[datetime, datetime]:
    """So many whole days, up to the last midnight that has settled."""
    end = (datetime.now(UTC) - timedelta(hours=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=days), end


def query(days: int) -> dict[str, Any]:
    """The query of these days, as page one sends it."""
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

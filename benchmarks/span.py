"""The days that every contender extracts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def days_until_now(days: int) -> tuple[datetime, datetime]:
    """So many whole days, up to the last midnight that has settled."""
    end = (datetime.now(UTC) - timedelta(hours=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return end - timedelta(days=days), end

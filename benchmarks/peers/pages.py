"""Reads the pages of the benchmark's source as a connector does: one query, until the token is null."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from benchmarks.span import query


def rows(url: str, days: int) -> Iterator[list[dict[str, Any]]]:
    """Yield a list of flat rows per page."""
    request = query(days)
    session = requests.Session()
    token = session.post(f"{url}/oauth/token", timeout=30).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    while True:
        response = session.post(
            f"{url}/api/v2/analytics/query-builder/query", json={"queryBuilder": request}, timeout=30
        )
        response.raise_for_status()
        page = response.json()
        yield [
            {
                "flow_id": entry["group"]["flow-id"],
                "bucket_start": entry["interval"].partition("/")[0],
                "bucket_end": entry["interval"].partition("/")[2],
                "outcome_name": name,
                "outcome_count": figure["count"],
                "outcome_percentage": figure["percentOfTotal"],
            }
            for entry in page["data"]
            for name, figure in entry["metrics"]["flow-outcomes"].items()
        ]
        if page["nextPageToken"] is None:
            return
        request["nextPageToken"] = page["nextPageToken"]

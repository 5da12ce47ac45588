"""The pages of the benchmark's source, read as a peer's connector would: one query, to the null token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from benchmarks.span import query


def rows(url: str, days: int) -> Iterator[list[dict[str, Any]]]:
    """One list of flat rows for each page."""
    asked = query(days)
    session = requests.Session()
    token = session.post(f"{url}/oauth/token", timeout=30).json()["access_token"]
    session.headers["Authorization"] = f"Bearer {token}"
    while True:
        answer = session.post(
            f"{url}/api/v2/analytics/query-builder/query", json={"queryBuilder": asked}, timeout=30
        )
        answer.raise_for_status()
        page = answer.json()
        yield [
            {
                "flow_id": entry["group"]["flow-id"],
                "bucket_start": entry["interval"].partition("/")[0],
                "bucket_end": entry["interval"].partition("/")[2],
                "outcome_name": name,
                "outcome_count": told["count"],
                "outcome_percentage": told["percentOfTotal"],
            }
            for entry in page["data"]
            for name, told in entry["metrics"]["flow-outcomes"].items()
        ]
        if page["nextPageToken"] is None:
            return
        asked["nextPageToken"] = page["nextPageToken"]

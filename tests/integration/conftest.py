"""An installation that polls jobs and retries requests after a tenth of the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.genesys import aggregates_jobs, retry
from tests.support.installation import Installation


@pytest.fixture
def installation(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setattr(aggregates_jobs, "POLL_FIRST", aggregates_jobs.POLL_FIRST / 10)
    monkeypatch.setattr(retry, "_FIRST_DELAY", retry._FIRST_DELAY / 10)
    return Installation(tmp_path, database)

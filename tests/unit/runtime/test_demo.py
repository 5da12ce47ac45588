"""The demo's configuration."""

from __future__ import annotations

from pathlib import Path

from service.runtime import demo


def test_one_org_on_each_api(tmp_path: Path) -> None:
    """The first is on Genesys Cloud's public API; both have every job."""
    config = demo._configuration(tmp_path, "http://127.0.0.1:9", 0)
    assert [(name, org.api) for name, org in config.orgs.items()] == [
        ("acme", "flow-aggregates"),
        ("globex", "query-builder"),
    ]
    assert all(set(job.orgs) in (set(), set(config.orgs)) for job in config.jobs.values())

"""The demo's configuration."""

from __future__ import annotations

from pathlib import Path

from service.runtime import demo


def test_one_org_on_each_api(tmp_path: Path) -> None:
    """The first is on Genesys Cloud's public API; which has every measure."""
    config = demo._configuration(tmp_path, "http://127.0.0.1:9", 0)
    assert [(name, org.api) for name, org in config.orgs.items()] == [
        ("acme", "flow-aggregates"),
        ("globex", "query-builder"),
    ]
    measured = {
        org: {job.measure for job in config.jobs.values() if org in (job.orgs or config.orgs)}
        for org in config.orgs
    }
    assert measured == {"acme": {"outcomes", "executions", "milestones"}, "globex": {"outcomes"}}
    assert config.jobs["daily"].group_by

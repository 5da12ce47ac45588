"""What events add to the metrics."""

from __future__ import annotations

import pytest

from service.telemetry import Reporter


@pytest.mark.parametrize("gone", ["org_released", "org_lost"])
def test_the_breaker_s_metric_ends_with_the_lease(gone: str) -> None:
    """The breaker's metric is removed with the lease: its closing would not be reported here."""
    reporter = Reporter()

    def state() -> float | None:
        return reporter.registry.get_sample_value("flow_outcomes_breaker_state", {"org": "acme"})

    reporter.emit("org_acquired", org="acme")
    assert state() == 0
    reporter.emit("circuit_opened", org="acme")
    assert state() == 2
    reporter.emit(gone, org="acme")
    assert state() is None
    reporter.emit("org_acquired", org="acme")
    assert state() == 0

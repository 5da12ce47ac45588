"""What events come to in the metrics."""

from __future__ import annotations

import pytest

from service.telemetry import Reporter


@pytest.mark.parametrize("gone", ["org_released", "org_lost"])
def test_an_open_breaker_does_not_outlive_the_hold(gone: str) -> None:
    """Its org's next owner begins with a closed one; here nobody would ever tell of its closing."""
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

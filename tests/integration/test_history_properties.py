"""After any history of scans, corrections and aliases the tables equal the reference model.

``FLOW_OUTCOMES_HISTORIES`` is the number of histories; ``make soak`` runs thousands of long ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.history_replay import Replays
from tests.support.history_steps import (
    HISTORY,
    STEP,
    Step,
)

HISTORIES = int(os.environ.get("FLOW_OUTCOMES_HISTORIES", "60"))


@pytest.fixture
def replays(database: str) -> Iterator[Replays]:
    with Replays(database) as replays:
        yield replays


def _settings(histories: int) -> settings:
    return settings(
        max_examples=histories,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


@_settings(HISTORIES)
@given(history=HISTORY)
def test_any_history_ends_in_what_the_plain_definition_says(replays: Replays, history: list[Step]) -> None:
    """After every step, and as of every step afterwards; unchanged rows are not written."""
    replays.run(history)


@pytest.mark.soak
@_settings(5000)
@given(history=st.lists(STEP, min_size=1, max_size=30))
def test_any_long_history_does_so_too(replays: Replays, history: list[Step]) -> None:
    """Thousands of longer ones too."""
    replays.run(history)

"""Uses the fixtures of the fault tests."""

from __future__ import annotations

from tests.faults.conftest import fragile_server, site

__all__ = ["fragile_server", "site"]

"""The client that an org's configuration gives."""

from __future__ import annotations

import pytest

from service.clock import SystemClock
from service.config import config_from
from service.genesys import make_client


@pytest.mark.parametrize(("region", "reported"), [("mypurecloud.co", ["region_unknown"]), ("us-east-1", [])])
async def test_an_unknown_region_is_reported(region: str, reported: list[str]) -> None:
    """By one event, and the client is created."""
    org = {"region": region, "client_id": "c", "client_secret": "a-secret", "requests_per_second": 2}
    config = config_from({"database": {"dsn": "postgresql://nowhere/none"}, "orgs": {"acme": org}})
    events: list[str] = []
    client = make_client(
        config.orgs["acme"],
        lambda event, **_: events.append(event),
        SystemClock(),
        lambda: None,
        lambda _: None,
        lambda _: None,
    )
    await client.close()
    assert events == reported
    assert client.rate_ceiling == 2

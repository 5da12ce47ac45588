"""No secret is logged or stored, also where a server's error text repeats it."""

from __future__ import annotations

import base64
import json
from typing import Any

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from service.simulator import Fault, Faults, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from tests.support.collector import collecting
from tests.support.program import SECRET, Program

FAULTS = {
    **{
        f"repeats_{status}": Faults(hostile_error=Fault(status, page=2))
        for status in (400, 401, 403, 404, 500, 503)
    },
    "repeats_410": Faults(hostile_error=Fault(410, page=1)),
    "login": Faults(token_hostile=Fault()),
}


async def test_no_secret_is_repeated(program: Program) -> None:
    """Client secrets, tokens and authorization headers are in no log, at any level, and in no table."""
    orgs = {
        name: SimulatedOrg(
            client_secret=f"{SECRET}/{name}",
            centre=GeneratedCentre(seed=1, flows=6),
            requests_per_second=None,
            retry_after=1,
            faults=faults,
        )
        for name, faults in FAULTS.items()
    }
    async with Simulator(SimulatorConfig(orgs=orgs)) as simulator:
        program.configure(
            simulator,
            orgs={name: {"page_size": 4, "breaker": {"failures": 2}} for name in orgs},
            ad_hoc={
                name.replace("_", "-"): {"org": name, "from": "2024-01-01", "to": "2024-01-03"} for name in orgs
            },
            log={"level": "debug"},
        )
        ended = await program.run("run", "--once")
        assert (ended.code, ended.err) == (1, "")
        for name in orgs:
            assert simulator.orgs[name].fired.total(), name
        tokens = list(simulator.tokens._tokens)
    assert len(tokens) >= len(orgs) - 1
    failed = {each["org"]: each["last_error"] for each in program.windows() if each["state"] == "failed"}
    assert set(failed) == set(orgs)
    assert all("[redacted]" in error for error in failed.values()), failed
    tables = program.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'flow_outcomes'")
    assert len(tables) > 10
    stored = "\n".join(
        str(row["line"])
        for table in tables
        for row in program.rows(f'SELECT t::text AS line FROM flow_outcomes."{table["name"]}" t')
    )
    basics = [base64.b64encode(f"{name}:{SECRET}/{name}".encode()).decode() for name in orgs]
    for text in (ended.out, stored):
        assert len(text) > 1000
        assert SECRET not in text
        for secret in (*tokens, *basics):
            assert secret not in text
            assert secret[:24] not in text


class Echo:
    """An API whose pages repeat the secrets that it received."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        app = web.Application()
        app.router.add_post("/oauth/token", self._token)
        app.router.add_post("/api/v2/analytics/query-builder/query", self._query)
        self.server = TestServer(app)

    async def _token(self, request: web.Request) -> web.Response:
        basic = request.headers["Authorization"].split()[1]
        self.secrets += [basic, base64.b64decode(basic).decode().split(":")[1], "canary-token-77aa01f3c9"]
        return web.json_response({"access_token": self.secrets[-1], "expires_in": 3600})

    async def _query(self, request: web.Request) -> web.Response:
        builder = json.loads(await request.text())["queryBuilder"]
        start, secrets = builder["dateFrom"], " ".join(self.secrets)
        rejected = {
            "group": {"flow-id": "f"},
            "interval": secrets,
            "metrics": {"flow-outcomes": {"A": {"count": 1}}},
        }
        conflicting: list[dict[str, Any]] = [
            {
                "group": {"flow-id": secrets},
                "interval": f"{start}/{builder['dateTo']}",
                "metrics": {"flow-outcomes": {secrets: {"count": count}}},
            }
            for count in (1, 2)
        ]
        return web.json_response(
            {"nextPageToken": None, "data": conflicting if start.startswith("2024-01-01") else [rejected]}
        )


async def test_no_secret_is_repeated_from_a_page(program: Program) -> None:
    """Neither in the reason of a failure, nor in a rejected entry, nor in a span."""
    echo = Echo()
    async with echo.server, collecting() as collector:
        url = str(echo.server.make_url("")).rstrip("/")
        org = {"base_url": url, "login_url": url, "client_id": "acme", "client_secret": SECRET}
        span = {"org": "acme", "granularity": "daily"}
        tree = {
            "database": {"dsn": program.dsn},
            "orgs": {"acme": org},
            "ad_hoc": {
                "conflicting": {**span, "from": "2024-01-01", "to": "2024-01-02"},
                "rejected": {**span, "from": "2024-03-01", "to": "2024-03-02"},
            },
        }
        program.config.write_text(yaml.safe_dump(tree))
        ended = await program.run("run", "--once", environment={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert len(echo.secrets) == 3
    assert {span.name for span in collector.spans if "[redacted]" in span.error} == {"scan", "merge"}
    conflicting, rejected = program.windows()
    assert (conflicting["state"], "[redacted]" in conflicting["last_error"]) == ("failed", True)
    assert (rejected["state"], rejected["rejected"]) == ("complete", 1)
    (entry,) = program.rows("SELECT entry, reason FROM flow_outcomes.rejected_entry")
    assert "[redacted] [redacted] [redacted]" in entry["entry"]
    assert len(ended.find_events("entry_rejected", org="acme", query_hash=rejected["query_hash"])) == 1
    for secret in echo.secrets:
        assert secret not in ended.out + str(conflicting) + str(entry)
        assert not any(secret.encode() in body for body in collector.bodies)

"""A secret is found nowhere, not even where a server's error text repeats it."""

from __future__ import annotations

import base64

from service.simulator import Fault, Faults, GeneratedCentre, SimulatedOrg, Simulator, SimulatorConfig
from tests.acceptance.program import SECRET, Program

FAULTS = {
    **{f"says_{status}": Faults(hostile_error=Fault(status, page=2)) for status in (400, 401, 403, 404, 500, 503)},
    "says_410": Faults(hostile_error=Fault(410, page=1)),
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
        tokens = list(simulator.tokens._known)
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

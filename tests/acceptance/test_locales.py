"""Locales and encodings of a site: own files are UTF-8, and what cannot be shown is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from service.simulator import SimulatedOrg, Simulator, SimulatorConfig, StaticCentre
from tests.support.program import Program, today

LOCALES: dict[str, dict[str, str]] = {
    "C without UTF-8 mode": {"LC_ALL": "C", "PYTHONUTF8": "0"},
    "C without coercion": {"LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "LANG=C": {"LANG": "C"},
    "ascii streams": {"PYTHONIOENCODING": "ascii"},
    "strict streams": {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"},
}
OLD, NEW = "Überlauf → 転送済み", "Café ☎"


@pytest.mark.parametrize("environment", LOCALES.values(), ids=LOCALES)
async def test_every_command_in_every_locale(program: Program, environment: Mapping[str, str]) -> None:
    """Names in any script are stored and read to the letter; no command ends in a traceback."""
    with psycopg.connect(program.dsn, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS flow_outcomes CASCADE")
    days = [today() - timedelta(days=back) for back in (1, 2, 3)]
    centre = StaticCentre({("flüß", day): {OLD: 3, "plain": 1} for day in days})
    secret = program.folder / "schlüssel"
    program.config = program.folder / "einrichtung-für-☎.yaml"
    _write(secret, "canary-ü-secret")
    org = SimulatedOrg(centre=centre, client_secret="canary-ü-secret")
    async with Simulator(SimulatorConfig(orgs={"acme": org})) as simulator:
        program.configure(
            simulator,
            orgs={"acme": {"client_secret": None, "client_secret_file": secret.name}},
            jobs={"daily": {"since": "P3D", "off_peak": None}},
            log={"format": "console"},
        )
        _write(program.config, f"# für ☎\n{program.config.read_text()}")
        written = {}
        for command in (
            ["migrate"],
            ["check"],
            ["plan"],
            ["run", "--once"],
            ["alias", "add", "--org", "acme", OLD, NEW],
            ["alias", "list", "--org", "acme"],
            ["alias", "list", "--org", "acme", "--json"],
            ["status"],
            ["status", "--json"],
            ["rejected"],
            ["export", "--parquet", str(program.folder / "ausgabe-für")],
        ):
            ended = await program.run(*command, environment=environment)
            assert "Traceback" not in ended.err + ended.out, (command, ended.err)
            assert ended.code == 0, (command, ended.out, ended.err)
            written[" ".join(command)] = ended.out
        names = {row["outcome_name"] for row in program.rows("SELECT * FROM flow_outcomes.flow_outcome")}
        assert names == {NEW, "plain"}
        if "PYTHONIOENCODING" in environment:
            assert r"Caf\xe9 \u260e" in written["alias list --org acme"]
        missing = await program.run("status", "--config", "keine-für.yaml", environment=environment)
        assert (missing.code, missing.err.count("\n")) == (2, 1)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")

"""From an empty folder to a valid configuration, without a database."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from tests.support.program import SECRET, Program

PASSWORD = "canary-password-of-the-database"


async def test_init_writes_a_valid_configuration_once(tmp_path: Path) -> None:
    """``init`` writes the file that the other commands find by themselves; it never overwrites one."""
    async with Program(tmp_path, "") as program:
        written = await (await program.start_bare("init", "--embedded")).end()
        assert (written.code, written.err) == (0, "")
        assert stat.S_IMODE(program.config.stat().st_mode) == 0o600
        content = program.config.read_bytes()
        again = await (await program.start_bare("init")).end()
        assert (again.code, again.out) == (2, "")
        assert again.err.startswith("flow-outcomes.yaml: exists already")
        assert program.config.read_bytes() == content
        valid = await (await program.start_bare("config", "validate")).end()
        assert (valid.code, valid.err) == (0, "")
        assert "1 org, 1 job" in valid.out
        assert not (tmp_path / "flow-outcomes-data").exists(), "no database was needed"


@pytest.mark.parametrize("target", ["missing/folder/a.yaml", "."])
async def test_init_says_what_it_cannot_write(tmp_path: Path, target: str) -> None:
    """A file that cannot be written is one line and exit code 2."""
    async with Program(tmp_path, "") as program:
        ended = await (await program.start_bare("init", target)).end()
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert ended.err.startswith(target)


async def test_the_variable_names_the_configuration(tmp_path: Path) -> None:
    """``FLOW_OUTCOMES_CONFIG`` is where ``init`` writes and where every other command reads."""
    named = {"FLOW_OUTCOMES_CONFIG": str(tmp_path / "other.yaml")}
    async with Program(tmp_path, "") as program:
        assert (await (await program.start_bare("init", environment=named)).end()).code == 0
        assert (await (await program.start_bare("config", "validate", environment=named)).end()).code == 0
        assert (await (await program.start_bare("config", "validate")).end()).code == 2


async def test_show_hides_every_secret(tmp_path: Path) -> None:
    """``config show`` prints the effective values, the environment's too, and no secret."""
    async with Program(tmp_path, "") as program:
        assert (await (await program.start_bare("init")).end()).code == 0
        environment = {
            "FLOW_OUTCOMES_DATABASE__DSN": f"postgresql://me:{PASSWORD}@db/outcomes",
            "FLOW_OUTCOMES_ORGS__ACME__CLIENT_SECRET": SECRET,
            "FLOW_OUTCOMES_ORGS__ACME__PAGE_SIZE": "77",
        }
        for option in ([], ["--json"]):
            shown = await (await program.start_bare("config", "show", *option, environment=environment)).end()
            assert (shown.code, shown.err) == (0, "")
            assert SECRET not in shown.out
            assert PASSWORD not in shown.out
            tree = json.loads(shown.out) if option else yaml.safe_load(shown.out)
            assert tree["orgs"]["acme"]["page_size"] == 77
            assert tree["jobs"]["daily"]["lookback"] == "P7D"
            assert tree["database"]["dsn"].endswith("@db/outcomes")


async def test_validate_reports_every_fault(tmp_path: Path) -> None:
    """``config validate`` has a line for each fault; with ``--json`` they are one document."""
    async with Program(tmp_path, "") as program:
        assert (await (await program.start_bare("init")).end()).code == 0
        faulty = program.config.read_text().replace("window: day", "windw: day").replace("port: 8080", "port: x")
        program.config.write_text(faulty)
        ended = await program.run("config", "validate")
        assert (ended.code, ended.out) == (2, "")
        assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["http.port", "jobs.daily.windw"]
        assert "did you mean window?" in ended.err
        document = await program.run("config", "validate", "--json")
        assert (document.code, document.err) == (2, "")
        assert [fault["key"] for fault in json.loads(document.out)["faults"]] == ["http.port", "jobs.daily.windw"]


async def test_an_unknown_region_is_a_warning_with_the_list(tmp_path: Path) -> None:
    """A region that is none of Genesys Cloud's is valid, with a warning that suggests one."""
    async with Program(tmp_path, "") as program:
        assert (await (await program.start_bare("init")).end()).code == 0
        program.config.write_text(program.config.read_text().replace("mypurecloud.com ", "mypurecloud.cmo "))
        ended = await program.run("config", "validate")
        assert ended.code == 0
        assert "did you mean mypurecloud.com?" in ended.err
        assert "euc2.pure.cloud (eu-central-2)" in ended.err


async def test_schema_and_completion_need_no_configuration(tmp_path: Path) -> None:
    """``config schema`` and ``completion`` print their documents in an empty folder."""
    async with Program(tmp_path, "") as program:
        schema = await (await program.start_bare("config", "schema")).end()
        assert (schema.code, schema.err) == (0, "")
        assert "orgs" in json.loads(schema.out)["properties"]
        for shell in ("bash", "zsh", "tcsh"):
            completion = await (await program.start_bare("completion", shell)).end()
            assert (completion.code, completion.err) == (0, "")
            assert "backfill" in completion.out

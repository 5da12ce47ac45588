"""What the command line accepts, and what it suggests."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.cli import parser
from service.cli.parser import CONFIG_VARIABLE, parse

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration, and an environment that names none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    return tmp_path


def usage_error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message of a usage error."""
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_the_configuration_is_found(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``--config`` comes before the variable, the variable before the file in the current folder."""
    (empty_folder / "flow-outcomes.yaml").touch()
    assert parse(["status"]).config == Path("flow-outcomes.yaml")
    monkeypatch.setenv(CONFIG_VARIABLE, "")
    assert parse(["status"]).config == Path("flow-outcomes.yaml")
    monkeypatch.setenv(CONFIG_VARIABLE, "/etc/a.yaml")
    assert parse(["status"]).config == Path("/etc/a.yaml")
    assert parse(["status", "--config", "b.yaml"]).config == Path("b.yaml")


def test_a_missing_configuration_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Where no configuration is found, the message names the three ways to give one, and ``init``."""
    message = usage_error(capsys, "run")
    for words in ("--config", CONFIG_VARIABLE, "flow-outcomes.yaml", "flow-outcomes init"):
        assert words in message


@pytest.mark.parametrize(
    ("argv", "meant"),
    [
        (["stauts"], "status"),
        (["backfil"], "backfill"),
        (["config", "validat"], "validate"),
        (["alias", "ad"], "add"),
        (["status", "--jsn"], "--json"),
        (["run", "--onec"], "--once"),
        (["backfill", "--granularity", "dayly"], "daily"),
        (["completion", "bsh"], "bash"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_mistyped_word_gets_a_suggestion(
    argv: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command, an option or a value that does not exist is answered with a similar one."""
    assert f"did you mean {meant}?" in usage_error(
        capsys, *argv, *(["--config", "x"] if argv[0] == "status" else [])
    )


@pytest.mark.parametrize("argv", [["config", "schema", "--config", "x"], ["init", "--once"]])
def test_options_of_other_commands_are_not_suggested(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that the command does not have is no suggestion, least of all the given one."""
    monkeypatch.setenv("FLOW_OUTCOMES_CONFIG", "x")
    error = usage_error(capsys, *argv)
    assert "unknown argument '--" in error
    assert "did you mean" not in error


def test_a_word_like_no_other_gets_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is similar, the commands are listed."""
    assert "choose from demo, init" in usage_error(capsys, "zzzzzz")


def test_quiet_and_verbose_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """``-q`` and ``-v`` together are a usage error."""
    usage_error(capsys, "status", "--config", "x", "-q", "-v")


def test_every_command_is_declared() -> None:
    """The list of commands and the parser's are the same."""
    declared = parser.build_parser(declare_simulator=False)
    assert set(parser.COMMANDS) == set(declared.commands())


@pytest.mark.parametrize(
    ("operands", "names"),
    [
        (["--", "--", "--"], ("--", "--")),
        (["--", "-a", "--"], ("-a", "--")),
        (["--", "--", "-b"], ("--", "-b")),
        (["--", "--help", "--org=x"], ("--help", "--org=x")),
        (["A", "--", "--"], ("A", "--")),
    ],
)
def test_names_that_look_like_options(operands: list[str], names: tuple[str, str]) -> None:
    """After ``--`` every argument is a name, ``--`` too."""
    parsed = parse(["alias", "add", "--config=x", "--org=acme", "--flow=--", *operands])
    assert (parsed.flow, parsed.old, parsed.new) == ("--", *names)


def test_one_name_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error names the argument as it was given."""
    with pytest.raises(SystemExit) as ended:
        parse(["alias", "add", "--config=x", "--org=acme", "--", "A", "B", "--"])
    assert ended.value.code == 2
    assert "unknown argument '--'" in capsys.readouterr().err

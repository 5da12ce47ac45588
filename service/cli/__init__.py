"""The front door: commands, their results and exit codes.

0 all done, 1 something due could not be done, 2 bad configuration or usage.
"""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import NoReturn

from service import __version__
from service.cli.early_signals import handle_early_signals
from service.errors import ConfigError, FlowOutcomesError

DONE, UNDONE, BAD_USAGE = 0, 1, 2

# Each is a module of this package; only the one that was asked for is imported, or all of them for the help.
_COMMANDS = (
    "demo",
    "run",
    "backfill",
    "status",
    "check",
    "plan",
    "alias",
    "rejected",
    "export",
    "migrate",
    "simulate",
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the usage in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser(wanted: Sequence[str] = _COMMANDS) -> argparse.ArgumentParser:
    """The command line, with the wanted commands."""
    top = _Parser(
        prog="flow-outcomes",
        description="Brings Genesys Cloud flow-outcome figures into PostgreSQL, complete and right.",
    )
    top.add_argument("--version", action="version", version=f"flow-outcomes {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in wanted:
        import_module(f"{__name__}.{name}").add_to(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    with handle_early_signals() if argv[:1] == ["run"] else nullcontext():
        return _main(argv)


@contextmanager
def _here_to_stay() -> Iterator[None]:
    """What is made meanwhile, such as modules, is never looked through for garbage: there is none among it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _complain(text: str) -> None:
    """Write to standard error, without secrets."""
    from service.telemetry import redacted

    sys.stderr.write(f"{redacted(text)}\n")


def _main(argv: Sequence[str]) -> int:
    with _here_to_stay():
        command_line = parser(argv[:1] if argv[:1] and argv[0] in _COMMANDS else _COMMANDS)
    arguments = command_line.parse_args(argv)
    try:
        code: int = arguments.command(arguments)
    except ConfigError as error:
        for fault in error.faults:
            _complain(f"{fault.key}: {fault.message}")
        return BAD_USAGE
    except FlowOutcomesError as error:
        hint = getattr(error, "hint", "")
        _complain(f"flow-outcomes: {error}{f' ({hint})' if hint else ''}")
        return UNDONE
    except BrokenPipeError:
        sys.stderr.close()
        return UNDONE
    except Exception:  # noqa: BLE001 - a traceback quotes what libraries say, secrets among it
        _complain(traceback.format_exc().rstrip())
        return UNDONE
    except KeyboardInterrupt:
        return 130
    return code

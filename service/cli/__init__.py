"""The command line: commands, their results and exit codes.

::

    parser           every command with its arguments
    argument_parser  usage errors in one line, with a suggestion
    early_signals    signals outside the daemon's main loop
    text_encoding    arguments and standard streams, whatever the locale
    configuration    the configuration and logging of a command
    output           standard output and error that are closed or full
    tables           tables for people
    …                a module for each command, with ``run(arguments) -> int``

A command's module is imported when the command line names it, so ``--version``, ``--help`` and usage errors need
the standard library alone.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from importlib import import_module

from service.cli import output
from service.cli.early_signals import end_on_sigterm, handle_early_signals
from service.cli.parser import parse
from service.cli.text_encoding import arguments, escape_what_cannot_be_shown
from service.errors import ConfigError, FlowOutcomesError


class ExitCode(IntEnum):
    """What a command reports to its caller."""

    DONE = 0
    INCOMPLETE = 1  # something that was due could not be done
    USAGE = 2  # invalid configuration or usage
    INTERRUPTED = 130  # SIGINT, as a shell reports it
    TERMINATED = 143  # SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Raises:
        SystemExit: after ``--version``, ``--help`` or a usage error.
    """
    output.open_missing()
    escape_what_cannot_be_shown()
    argv = arguments() if argv is None else argv
    with (
        handle_early_signals() if argv[:1] == ["run"] else end_on_sigterm() as terminated,
        output.checked_stdout() as output_error,
    ):
        try:
            code = _run(argv, output_error)
            _close_traces()
            if code == ExitCode.INTERRUPTED and terminated is not None and terminated():
                code = ExitCode.TERMINATED
        except SystemExit as end:
            if output_error() is None:
                raise
            code = ExitCode.INCOMPLETE if not end.code else int(end.code)
        if (error := output_error()) is not None:
            _print_error(f"flow-outcomes: cannot write standard output: {error.strerror}")
            return code or ExitCode.INCOMPLETE
    return code


def _run(argv: Sequence[str], output_error: Callable[[], OSError | None]) -> int:
    try:
        parsed = parse(argv)
        with _excluded_from_collection():
            command = import_module(f"{__name__}.{parsed.command}")
        code: int = command.run(parsed)
    except ConfigError as error:
        for fault in error.faults:
            _print_error(f"{fault.key}: {fault.message}")
        return ExitCode.USAGE
    except FlowOutcomesError as error:
        hint = getattr(error, "hint", "")
        _print_error(f"flow-outcomes: {error}{f' ({hint})' if hint else ''}")
        return ExitCode.INCOMPLETE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the interpreter would print secrets that a library's error quotes
        if isinstance(error, OSError) and output_error() is not None:
            return ExitCode.INCOMPLETE
        import traceback

        reason = _rejection(error)
        _print_error(f"flow-outcomes: {reason}" if reason else traceback.format_exc().rstrip())
        return ExitCode.INCOMPLETE
    return code


def _rejection(error: Exception) -> str:
    """What the schema or the role lacks; empty for other errors. The driver is not imported for this."""
    if "psycopg" not in sys.modules:
        return ""
    from service.postgres.probe import rejection

    return rejection(error)


@contextmanager
def _excluded_from_collection() -> Iterator[None]:
    """Exclude the objects created meanwhile from garbage collection: modules stay until the process ends."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _close_traces() -> None:
    """Export the last spans; the module is not imported for this."""
    if traces := sys.modules.get("service.telemetry.traces"):
        traces.close()


def _print_error(text: str) -> None:
    """Write to standard error, after the log's lines and without secrets."""
    from service.telemetry import logs, redacted

    logs.drain()
    try:
        sys.stderr.write(f"{redacted(text)}\n")
        sys.stderr.flush()
    except OSError:
        output.discard(sys.stderr)

"""An argument parser that reports a usage error in one line, with a suggestion, and takes ``--`` as a value."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

DASHES = "\N{NULL}--"
"""``--`` where it is no separator: no argument of a process has such a character."""
Commands = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


class ArgumentParser(argparse.ArgumentParser):
    """Reports a usage error in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message and where to find help."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Reject a value that is no choice, and suggest a similar one."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            known = suggestion(str(value), choices) or f"choose from {', '.join(choices)}"
            kind = "command" if action.nargs == argparse.PARSER else "value"
            raise argparse.ArgumentError(
                None if kind == "command" else action, f"unknown {kind} {value!r}; {known}"
            )

    def parse_known_args(  # type: ignore[override]  # the signatures of the base class are overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, with ``--`` as the value of an option or an operand too; argparse of Python 3.11 drops it."""
        given = list(sys.argv[1:] if args is None else args)
        operands = given.index("--") + 1 if "--" in given else len(given)
        given[:operands] = [f"{each[:-2]}{DASHES}" if _is_dashes(each) else each for each in given[:operands]]
        if not self.commands():
            given[operands:] = [DASHES if each == "--" else each for each in given[operands:]]
        return super().parse_known_args(given, namespace)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:  # noqa: ANN401 - as the base class
        return super()._get_value(action, "--" if arg_string == DASHES else arg_string)

    def commands(self) -> dict[str, ArgumentParser]:
        """The parser's commands by name."""
        actions = (action for action in self._actions if isinstance(action, Commands))
        return {name: command for action in actions for name, command in (action.choices or {}).items()}

    def options(self) -> Iterator[str]:
        """The options of the parser and of its commands."""
        for action in self._actions:
            yield from (each for each in action.option_strings if each.startswith("--"))
        for command in self.commands().values():
            yield from command.options()


def _is_dashes(option: str) -> bool:
    """Whether this is an option with the value ``--``."""
    name, _, value = option.partition("=")
    return name.startswith("--") and value == "--"


def suggestion(text: str, known: Iterable[str]) -> str:
    """The question whether a similar known word was meant; empty where none is similar."""
    similar = get_close_matches(text, list(known), n=1)
    return f"did you mean {similar[0]}?" if similar else ""

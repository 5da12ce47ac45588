"""JSON that the fast decoder refuses as a whole, read so that one odd entry costs that entry alone.

msgspec refuses a page for one lone surrogate or one number past a double's range. RFC 8259 allows both in the
grammar, so here they are read, and what comes of them is judged entry by entry. NaN and Infinity are not JSON.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from service.errors import PageError

_EXACT = 2**53
"""From here on a double no longer tells every whole number from its neighbour."""
_DIGITS_OF_DOUBLE = 15
"""Significant digits that a double always keeps."""
_DIGITS_OF_INT = 400
"""More digits are past any double, and ``int`` takes quadratic time over them, or refuses."""

_LEAST = math.ulp(0.0)
"""Stands for what is nearer to zero than any double, and is not zero."""

_blank = re.compile(r"[ \t\n\r]*")


class Document(NamedTuple):
    """The outermost object of a page.

    Attributes:
        fields: its values by key, without the one that is cut into elements.
        raw: the text of each value, to the letter.
        elements: each with its text to the letter; None where their array is none, or not there.
    """

    fields: dict[str, Any]
    raw: dict[str, str]
    elements: list[tuple[Any, str]] | None


def parse(text: str) -> Any:  # noqa: ANN401  # a JSON value is anything
    """One JSON value.

    Raises:
        PageError: not JSON, or nested past what the interpreter can follow.
    """
    reader = _Reader(text)
    value = reader.value()
    reader.end()
    return value


def document(text: str, array: str = "data") -> Document:
    """The outermost object, the array under this key cut into elements.

    Raises:
        PageError: not JSON, not an object, or nested past what the interpreter can follow.
    """
    reader = _Reader(text)
    if not reader.peek("{"):
        parse(text)
        raise PageError("the page is no JSON object")
    fields: dict[str, Any] = {}
    raw: dict[str, str] = {}
    elements: list[tuple[Any, str]] | None = None
    more = reader.opens("{", "}")
    while more:
        if not reader.peek('"'):
            _refuse("a key is no string")
        key = reader.value()
        reader.take(":")
        begin = reader.at
        if key == array and reader.peek("["):
            elements = reader.elements()
        else:
            fields[key] = reader.value()
        raw[key] = text[begin : reader.at].rstrip(" \t\n\r")
        more = reader.goes_on("}")
    reader.end()
    return Document(fields, raw, elements)


class _Reader:
    """A place in a text, always past blanks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0
        self._skip()

    def peek(self, character: str) -> bool:
        """Whether that character comes next."""
        return self._text.startswith(character, self.at)

    def take(self, character: str) -> None:
        """Step over it; anything else is no JSON."""
        if not self.peek(character):
            _refuse(f"{character!r} is missing at character {self.at}")
        self.at += 1
        self._skip()

    def opens(self, opening: str, closing: str) -> bool:
        """Step into an array or object; whether there is anything in it."""
        self.take(opening)
        if self.peek(closing):
            self.take(closing)
            return False
        return True

    def goes_on(self, closing: str) -> bool:
        """Step over a comma (True) or out (False)."""
        if self.peek(","):
            self.take(",")
            return True
        self.take(closing)
        return False

    def value(self) -> Any:  # noqa: ANN401  # a JSON value is anything
        """The value that begins here."""
        try:
            value, self.at = _decoder.raw_decode(self._text, self.at)
        except RecursionError:
            raise PageError("the page is nested too deep") from None
        except json.JSONDecodeError as error:
            _refuse(f"{error.msg} at character {error.pos}")
        self._skip()
        return value

    def elements(self) -> list[tuple[Any, str]]:
        """The array that begins here, each element with its text."""
        found: list[tuple[Any, str]] = []
        more = self.opens("[", "]")
        while more:
            begin = self.at
            value = self.value()
            found.append((value, self._text[begin : self.at].rstrip(" \t\n\r")))
            more = self.goes_on("]")
        return found

    def end(self) -> None:
        """Nothing may follow."""
        if self.at != len(self._text):
            _refuse(f"something follows at character {self.at}")

    def _skip(self) -> None:
        match = _blank.match(self._text, self.at)
        self.at = match.end() if match else self.at


def _refuse(reason: str) -> NoReturn:
    raise PageError(f"the page is not JSON, or was cut short: {reason}") from None


def _int(literal: str) -> int | float:
    if len(literal) <= _DIGITS_OF_INT:
        return int(literal)
    return -math.inf if literal.startswith("-") else math.inf


def _float(literal: str) -> int | float | Decimal:
    """The number, exact where a double would round it to, or away from, a whole one."""
    value = float(literal)
    if not math.isfinite(value) or not value.is_integer():
        return value
    if value and abs(value) < _EXACT and len(literal) <= _DIGITS_OF_DOUBLE:
        return value
    try:
        exact = Decimal(literal)
        return int(exact) if exact == exact.to_integral_value() else exact
    except ArithmeticError:  # an exponent past all bounds, of zero or nearly so
        return _LEAST if re.search(r"^[^eE]*[1-9]", literal) else value


def _constant(name: str) -> NoReturn:
    _refuse(f"it holds {name}")


_decoder = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_constant)

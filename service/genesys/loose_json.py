"""JSON for responses that the fast decoder rejects as a whole, so that one unusual entry affects only itself.

msgspec rejects a page for one lone surrogate or one number outside a double's range. The grammar of RFC 8259
allows both, so they are read here and checked entry by entry. NaN and Infinity are not JSON.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from service.errors import InvalidResponseError

_EXACT = 2**53
"""From here on a double cannot represent every whole number."""
_DIGITS_OF_DOUBLE = 15
"""Significant digits that a double always keeps."""
_DIGITS_OF_INT = 400
"""Longer literals exceed a double; ``int`` takes quadratic time for them, or rejects them."""

_LEAST = math.ulp(0.0)
"""Stands for a number nearer to zero than any double, and not zero."""

_blank = re.compile(r"[ \t\n\r]*")


class Document(NamedTuple):
    """The outermost object of a page.

    Attributes:
        fields: its values by key, without the array of elements.
        raw: the text of each value, unchanged.
        elements: each element with its text, unchanged; None where the array is absent or no array.
    """

    fields: dict[str, Any]
    raw: dict[str, str]
    elements: list[tuple[Any, str]] | None


def decode_utf8(body: bytes, subject: str = "page") -> str:
    """The text of a response.

    Raises:
        InvalidResponseError: invalid UTF-8; the message names ``subject``.
    """
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidResponseError(f"{subject} is not valid UTF-8 at byte {error.start}") from None


def parse(text: str) -> Any:  # noqa: ANN401  # a JSON value is anything
    """One JSON value.

    Raises:
        InvalidResponseError: invalid JSON, or nested deeper than the interpreter's limit.
    """
    reader = _Reader(text)
    value = reader.value()
    reader.end()
    return value


def document(text: str, array: str = "data") -> Document:
    """The outermost object, with the array under the key ``array`` split into its elements.

    Raises:
        InvalidResponseError: invalid JSON, no object, or nested deeper than the interpreter's limit.
    """
    reader = _Reader(text)
    if not reader.at("{"):
        parse(text)
        raise InvalidResponseError("page is not a JSON object")
    fields: dict[str, Any] = {}
    raw: dict[str, str] = {}
    elements: list[tuple[Any, str]] | None = None
    more = reader.open("{", "}")
    while more:
        if not reader.at('"'):
            _reject("a key is not a string")
        key = reader.value()
        reader.skip(":")
        start = reader.position
        if key == array and reader.at("["):
            elements = reader.elements()
        else:
            fields[key] = reader.value()
        raw[key] = text[start : reader.position].rstrip(" \t\n\r")
        more = reader.next("}")
    reader.end()
    return Document(fields, raw, elements)


class _Reader:
    """A position in a text, always after blanks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.position = 0
        self._skip_blanks()

    def at(self, character: str) -> bool:
        """Whether this character comes next."""
        return self._text.startswith(character, self.position)

    def skip(self, character: str) -> None:
        """Read this character; any other is invalid."""
        if not self.at(character):
            _reject(f"{character!r} is missing at character {self.position}")
        self.position += 1
        self._skip_blanks()

    def open(self, opening: str, closing: str) -> bool:
        """Enter an array or object; whether it has a first item."""
        self.skip(opening)
        if self.at(closing):
            self.skip(closing)
            return False
        return True

    def next(self, closing: str) -> bool:
        """Go to the next item, or leave the array or object; whether there is an item."""
        if self.at(","):
            self.skip(",")
            return True
        self.skip(closing)
        return False

    def value(self) -> Any:  # noqa: ANN401  # a JSON value is anything
        """Read a value."""
        try:
            value, self.position = _decoder.raw_decode(self._text, self.position)
        except RecursionError:
            raise InvalidResponseError("page is nested too deeply") from None
        except json.JSONDecodeError as error:
            _reject(f"{error.msg} at character {error.pos}")
        self._skip_blanks()
        return value

    def elements(self) -> list[tuple[Any, str]]:
        """Read an array, each element with its text."""
        elements: list[tuple[Any, str]] = []
        more = self.open("[", "]")
        while more:
            start = self.position
            value = self.value()
            elements.append((value, self._text[start : self.position].rstrip(" \t\n\r")))
            more = self.next("]")
        return elements

    def end(self) -> None:
        """Check that the text ends here."""
        if self.position != len(self._text):
            _reject(f"unexpected text at character {self.position}")

    def _skip_blanks(self) -> None:
        match = _blank.match(self._text, self.position)
        self.position = match.end() if match else self.position


def _reject(reason: str) -> NoReturn:
    raise InvalidResponseError(f"page is truncated or not JSON: {reason}") from None


def _int(literal: str) -> int | float:
    if len(literal) <= _DIGITS_OF_INT:
        return int(literal)
    return -math.inf if literal.startswith("-") else math.inf


def _float(literal: str) -> int | float | Decimal:
    """The number; exact where a double would round it to, or away from, a whole number."""
    value = float(literal)
    if not math.isfinite(value) or not value.is_integer():
        return value
    if value and abs(value) < _EXACT and len(literal) <= _DIGITS_OF_DOUBLE:
        return value
    try:
        exact = Decimal(literal)
        return int(exact) if exact == exact.to_integral_value() else exact
    except ArithmeticError:  # an exponent outside Decimal's range, of zero or nearly zero
        return _LEAST if re.search(r"^[^eE]*[1-9]", literal) else value


def _constant(name: str) -> NoReturn:
    _reject(f"{name} is not a JSON value")


_decoder = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=_constant)

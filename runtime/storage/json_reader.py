"""Typed reading of JSON objects; errors name the place in the document, its value and what fits.

msgspec would check the same dataclasses in less code, but its errors name neither the value found
nor the values allowed, and it accepts integers of any length in free JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from taidpt.runtime.errors import BundleError, one_line

__all__ = ["JsonReader", "parse_json", "parse_object"]

T = TypeVar("T")

_MOST_DIGITS = 19  # of an integer: more do not fit into 64 bits
# Numbers too large for 64 bits and halves of surrogate pairs are rare; the parser's own hooks for
# them double the time of a large document, so they are set only where these patterns are found.
# With every digit as 0, a search for a fixed text finds them, which takes a tenth of the time of a
# pattern that tries every digit of a document.
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE_INTEGER, _LARGE_EXPONENTS = b"0" * (_MOST_DIGITS + 1), (b"e000", b"e+000")
_BEFORE_NUMBER = b"[:,- \t\r\n"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes | str) -> Any:
    """Parse JSON strictly: finite numbers, integers of 64 bits, whole characters, nested a little.

    Everything that comes from outside is read here; `json.loads` is for a subprocess of ours.

    Raises:
        ValueError: the text is not such JSON; one short line says why, with the place if known.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        return _parse_with_care(text) if _needs_care(text) else _parse(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError(f"{len(data)} bytes of JSON do not fit into memory") from None


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """Parse a JSON object of a bundle strictly, as `parse_json`.

    Args:
        where: the name of the document in errors.
    Raises:
        BundleError: the text is not such an object; the message has `where` and the line.
    """
    try:
        document = parse_json(data)
    except ValueError as error:
        raise BundleError(f"{where}: not valid JSON ({error}); export the bundle again") from None
    if not isinstance(document, dict):
        raise BundleError(f"{where}: expected a JSON object, got {type(document).__name__}")
    return document


def _needs_care(text: str) -> bool:
    if _SURROGATE.search(text):
        return True
    zeros = text.encode("utf-8", "surrogatepass").translate(_DIGITS_AS_ZERO)
    return _has_number(zeros, _LARGE_INTEGER, b"0") or any(
        _has_number(zeros, mark, b"0.") for mark in _LARGE_EXPONENTS
    )


def _has_number(zeros: bytes, mark: bytes, digits: bytes) -> bool:
    """Whether the mark belongs to a number; digits inside a word, as in a hash, are none.

    Args:
        digits: what may be between the beginning of the number and the mark.
    """
    at = zeros.find(mark)
    while at >= 0:
        begin = at
        while begin and zeros[begin - 1] in digits:
            begin -= 1
        if zeros[begin] == ord("0") and (not begin or zeros[begin - 1] in _BEFORE_NUMBER):
            return True
        at += len(mark)
        while zeros[at : at + 1] == b"0":  # the same digits, which are looked at once
            at += 1
        at = zeros.find(mark, at)
    return False


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)  # noqa: TID251


def _parse_with_care(text: str) -> Any:
    document = json.loads(  # noqa: TID251
        text,
        parse_constant=_refuse_constant,
        parse_int=_short_integer,
        parse_float=_finite_number,
    )
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair in a string") from None
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _short_integer(text: str) -> int:
    if len(text.lstrip("-")) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {_shown(text)} is too large")
    return number


class JsonReader:
    """Reads typed values of one JSON object; other keys are ignored."""

    def __init__(self, document: object, where: str) -> None:
        if not isinstance(document, dict):
            raise BundleError(f"{where}: expected an object, got {_shown(document)}")
        self.document: dict[str, Any] = document
        self.where = where

    def __contains__(self, key: str) -> bool:
        return self.document.get(key) is not None

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise a BundleError with the key, its value, and the expected value."""
        got = _shown(self.document[key]) if key in self.document else "nothing"
        raise BundleError(f"{self.where}: {key!r} should be {expected}, got {got}")

    def build(self, kind: Callable[..., T], **known: Any) -> T:
        """A dataclass, each field read from the key of its name as its annotation says.

        Args:
            kind: a dataclass; integers in it are at least 1.
            known: fields that are read otherwise.
        """
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass
            if field.name not in known:
                known[field.name] = _READERS[str(field.type)](self, field.name)
        return kind(**known)

    def child(self, key: str) -> JsonReader:
        """A reader of the object under `key`."""
        return JsonReader(self._get(key, dict, "an object"), f"{self.where}, {key}")

    def children(self, key: str) -> list[JsonReader]:
        """Readers of a list of objects under `key`."""
        items = self._get(key, list, "a list")
        return [
            JsonReader(item, f"{self.where}, {key}[{index}]") for index, item in enumerate(items)
        ]

    def string(self, key: str) -> str:
        """A string; it may be empty."""
        return str(self._get(key, str, "a string"))

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of a few strings."""
        value = self.document.get(key)
        if value not in allowed:
            self.fail(key, "one of " + ", ".join(allowed))
        return str(value)

    def boolean(self, key: str) -> bool:
        """True or false."""
        return bool(self._get(key, bool, "true or false"))

    def integer(self, key: str, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value: Any = self.document.get(key)
        if not _is_integer(value) or value < least:
            self.fail(key, f"a whole number of at least {least}")
        return int(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value: Any = self.document.get(key)
        if not _is_number(value):
            self.fail(key, "a finite number")
        return float(value)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        return self._items(key, lambda item: isinstance(item, str), "a list of strings")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return self._items(key, _is_integer, "a list of whole numbers")

    def size(self, key: str, expected: str) -> tuple[int, int]:
        """Two whole numbers of at least 1, described by `expected` as in "[rows, columns]"."""
        pair = self.integers(key)
        if len(pair) != 2 or min(pair) < 1:
            self.fail(key, expected)
        return pair[0], pair[1]

    def pairs(self, key: str) -> tuple[tuple[int, int], ...]:
        """A list of pairs of whole numbers of at least 0."""

        def fits(item: Any) -> bool:
            return (
                isinstance(item, list)
                and len(item) == 2
                and all(_is_integer(number) and number >= 0 for number in item)
            )

        items = self._items(key, fits, "a list of pairs of whole numbers")
        return tuple((first, second) for first, second in items)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return tuple(map(float, self._items(key, _is_number, "a list of finite numbers")))

    def _get(self, key: str, kind: type[T], expected: str) -> T:
        value = self.document.get(key)
        if not isinstance(value, kind):
            self.fail(key, expected)
        return value

    def _items(self, key: str, fits: Callable[[Any], bool], expected: str) -> tuple[Any, ...]:
        value = self.document.get(key)
        if not isinstance(value, list) or not all(map(fits, value)):
            self.fail(key, expected)
        return tuple(value)


_READERS: Mapping[str, Callable[[JsonReader, str], Any]] = {
    "str": JsonReader.string,
    "bool": JsonReader.boolean,
    "int": lambda reader, key: reader.integer(key, least=1),
    "float": JsonReader.number,
    "tuple[str, ...]": JsonReader.strings,
}


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _shown(value: object) -> str:
    text = one_line(json.dumps(value, ensure_ascii=False, default=repr))
    return text if len(text) <= 60 else text[:57] + "..."

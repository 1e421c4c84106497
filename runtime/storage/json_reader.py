"""Typed reading of JSON objects; errors name the place in the document."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from taidpt.runtime.errors import BundleError

__all__ = ["JsonReader", "parse_object"]

T = TypeVar("T")


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object strictly: no NaN, no infinities, no other type.

    Raises:
        BundleError: the text is not such an object; the message has `where` and the line.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: not valid JSON ({error}); export the bundle again") from None
    if not isinstance(document, dict):
        raise BundleError(f"{where}: expected a JSON object, got {type(document).__name__}")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


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

    def child(self, key: str) -> JsonReader:
        """A reader of the object under `key`."""
        if not isinstance(self.document.get(key), dict):
            self.fail(key, "an object")
        return JsonReader(self.document[key], f"{self.where}, {key}")

    def children(self, key: str) -> list[JsonReader]:
        """Readers of a list of objects under `key`."""
        if not isinstance(self.document.get(key), list):
            self.fail(key, "a list")
        return [
            JsonReader(item, f"{self.where}, {key}[{index}]")
            for index, item in enumerate(self.document[key])
        ]

    def string(self, key: str) -> str:
        """A string; it may be empty."""
        value = self.document.get(key)
        if not isinstance(value, str):
            self.fail(key, "a string")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """One of a few strings."""
        value = self.document.get(key)
        if value not in allowed:
            self.fail(key, "one of " + ", ".join(allowed))
        return str(value)

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self.document.get(key)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

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
        return self._items(key, lambda item: isinstance(item, str), str, "a list of strings")

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers."""
        return self._items(key, _is_integer, int, "a list of whole numbers")

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers."""
        return self._items(key, _is_number, float, "a list of finite numbers")

    def _items(
        self, key: str, fits: Callable[[Any], bool], make: Callable[[Any], T], expected: str
    ) -> tuple[T, ...]:
        value = self.document.get(key)
        if not isinstance(value, list) or not all(map(fits, value)):
            self.fail(key, expected)
        return tuple(map(make, value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."

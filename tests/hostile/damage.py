"""Damage for fuzzers: seeded, so that a failure names the input that made it."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from taidpt.runtime.errors import TaidptError

__all__ = ["HOSTILE", "damage_bytes", "damage_json", "require_one_line"]

# Values that a document can hold in place of any other.
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**9,
    2**62,
    10**400,
    1e300,
    -0.5,
    "",
    " ",
    "x" * 100_000,
    "../x",
    "a\nb\x1b[31m\u202e",
    "\ud800",
    [],
    [[]] * 3,
    {},
    {"": None},
    [0.5] * 1000,
)
# An error may repeat a line of the input, not a file of it.
_LONGEST_MESSAGE = 1500


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items: Any = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield from _places(value, (*path, key))


def damage_json(document: Any, chance: random.Random) -> Any:
    """A copy with one to three values replaced, removed, moved or doubled."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        path = chance.choice(list(_places(document)) or [()])
        if not path:
            return chance.choice(HOSTILE)
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        kind = chance.random()
        if kind < 0.15:
            del parent[path[-1]]
        elif kind < 0.25 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        elif kind < 0.35:
            other = document
            for key in chance.choice(list(_places(document))):
                other = other[key]
            parent[path[-1]] = copy.deepcopy(other)
        else:
            parent[path[-1]] = copy.deepcopy(chance.choice(HOSTILE))
    return document


def damage_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, left out or doubled."""
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if not damaged:
            break
        at = chance.randrange(len(damaged))
        size = chance.choice((1, 1, 4, 16, 256))
        kind = chance.random()
        if kind < 0.5:
            damaged[at] = chance.randrange(256)
        elif kind < 0.65:
            del damaged[at:]
        elif kind < 0.8:
            del damaged[at : at + size]
        else:
            damaged[at:at] = damaged[at : at + size]
    return bytes(damaged)


def require_one_line(error: TaidptError, secret: str = "") -> None:
    """Check an error's message: one printable line of bounded length."""
    text = str(error)
    assert text.strip(), "an empty message"
    assert text.isprintable(), f"not one printable line: {text[:300]!r}"
    assert len(text) <= _LONGEST_MESSAGE, f"{len(text)} characters: {text[:300]!r}"

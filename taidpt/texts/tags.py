"""The user's tags: names and their synonyms, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages

__all__ = ["Tag", "TagSet"]

_KEYS = {"name", "synonyms"}
_SHAPE = "a tag is a text, or a mapping with `name` and, if you like, a list `synonyms`"


@dataclass(frozen=True)
class Tag:
    """One tag.

    Attributes:
        name: what it is called, and what stands in the prompt.
        synonyms: other words for it in texts.
    """

    name: str
    synonyms: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class TagSet:
    """A checked list of tags, in the user's order.

    Raises:
        InputError: no tags, a word that is empty or only punctuation, or one that two tags share.
    """

    tags: tuple[Tag, ...]
    source: str = "the tag list"

    def __post_init__(self) -> None:
        if not self.tags:
            raise InputError(f"{self.source}: no tags; give at least one")
        owners: dict[str, str] = {}
        for tag in self.tags:
            for word in tag.words:
                _check_word(word, tag.name, self.source)
                _claim(owners, word, tag, self.source)

    def __len__(self) -> int:
        return len(self.tags)

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names."""
        return tuple(tag.name for tag in self.tags)

    @classmethod
    def from_names(cls, names: Iterable[str], source: str = "the tag list") -> TagSet:
        """Tags without synonyms."""
        return cls(tuple(Tag(_tidy(name)) for name in names), source)

    @classmethod
    def load(cls, path: str | Path) -> TagSet:
        """Read `tags.yaml`, or a plain `.txt` with a tag a line.

        The YAML is a list, or a mapping with a list under `tags`. Each item is a text, or a mapping
        with `name` and `synonyms`.

        Raises:
            InputError: with the file and, where it can be told, the line or the entry.
        """
        file = Path(path)
        text = _read(file)
        if file.suffix.lower() == ".txt":
            names = (line.strip() for line in text.splitlines())
            return cls.from_names((name for name in names if name), str(file))
        return cls(tuple(_tags_from_yaml(text, str(file))), str(file))


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; give a tags.yaml") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def _tags_from_yaml(text: str, source: str) -> Iterator[Tag]:
    document = _parse_yaml(text, source)
    if isinstance(document, dict):
        if "tags" not in document:
            raise InputError(f"{source}: expected a list under `tags:`, got {sorted(document)}")
        document = document["tags"]
    if document is None:
        document = []
    if not isinstance(document, list):
        raise InputError(f"{source}: expected a list of tags, got {type(document).__name__}")
    for number, entry in enumerate(document, start=1):
        yield _tag_from_entry(entry, f"{source}, tag {number}")


def _parse_yaml(text: str, source: str) -> Any:
    with optional_packages("reading tags.yaml", "tune", "give a .txt list"):
        import yaml
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{source}{where}: not valid YAML: {problem}") from None


def _tag_from_entry(entry: Any, where: str) -> Tag:
    if isinstance(entry, str):
        return Tag(_tidy(entry))
    if not isinstance(entry, dict):
        raise InputError(f"{where}: got {entry!r}; {_SHAPE} (quote words such as 'no' and '7')")
    unknown = set(entry) - _KEYS
    if unknown or "name" not in entry:
        problem = f"unknown {sorted(map(str, unknown))}" if unknown else "no `name`"
        raise InputError(f"{where}: {problem}; {_SHAPE}")
    name, synonyms = entry["name"], entry.get("synonyms") or []
    if isinstance(synonyms, str):
        synonyms = [synonyms]
    if not isinstance(name, str) or not all(isinstance(word, str) for word in synonyms):
        raise InputError(f"{where}: got {entry!r}; {_SHAPE} (quote words such as 'no' and '7')")
    tidy = dict.fromkeys(_tidy(word) for word in synonyms)
    tidy.pop(_tidy(name), None)
    return Tag(_tidy(name), tuple(tidy))


def _tidy(word: str) -> str:
    return re.sub(r"\s+", " ", word).strip()


def _check_word(word: str, name: str, source: str) -> None:
    if not any(character.isalnum() for character in word):
        what = "is empty" if not word else "has no letter or digit"
        raise InputError(f"{source}: {word!r} (tag {name!r}) {what}; remove it or give it a name")


def _claim(owners: dict[str, str], word: str, tag: Tag, source: str) -> None:
    key = word.casefold()
    if owners.setdefault(key, tag.name) is not tag.name:
        if key == tag.name.casefold() and key == owners[key].casefold():
            raise InputError(f"{source}: the tag {word!r} stands twice; remove one")
        raise InputError(
            f"{source}: {word!r} belongs to two tags, {owners[key]!r} and {tag.name!r}; "
            "leave it with one"
        )

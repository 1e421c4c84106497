"""The user's tags: names and their synonyms, read and checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.texts.quoting import listed, quoted, shortened

__all__ = ["Tag", "TagSet"]

_SUFFIXES = (".yaml", ".yml", ".txt")
_KEYS = {"name", "synonyms"}
_SHAPE = "a tag is a text, or a mapping with `name` and perhaps a list `synonyms`"


@dataclass(frozen=True)
class Tag:
    """One tag.

    Attributes:
        name: its name, which stands in the prompt.
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
        InputError: no tags, a word without a letter or digit, or words shared by two tags.
    """

    tags: tuple[Tag, ...]
    source: str = "the tag list"

    def __post_init__(self) -> None:
        if not self.tags:
            raise InputError(f"{self.source}: no tags; give at least one")
        for tag in self.tags:
            for word in tag.words:
                _check_word(word, tag.name, self.source)
        _check_owners(self.tags, self.source)

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
    def parse(cls, text: str, source: str = "--tags") -> TagSet:
        """Read a command line's tags: a file of them, or names with commas between them.

        Raises:
            InputError: the file cannot be read, or a name is empty or repeated.
        """
        if text.lower().endswith(_SUFFIXES) or Path(text).is_file():
            return cls.load(text)
        return cls.from_names(text.split(","), source)

    @classmethod
    def load(cls, path: str | Path) -> TagSet:
        """Read `tags.yaml`, or a plain `.txt` with a tag a line.

        The YAML is a list, or a mapping with a list under `tags`. Each item is a text, or a mapping
        with `name` and `synonyms`. Words are normalised to Unicode NFC.

        Raises:
            InputError: the file is invalid; names the file and, if known, the line or the entry.
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
            keys = listed(map(quoted, document))
            raise InputError(f"{source}: expected a list under `tags:`, got the keys {keys}")
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
        raise InputError(f"{source}{where}: not valid YAML: {shortened(problem)}") from None
    except ValueError as error:  # such as 2024-13-45, which has the form of a date
        problem = shortened(str(error))
        raise InputError(f"{source}: not valid YAML: {problem}; quote dates and numbers") from None
    except RecursionError:
        raise InputError(f"{source}: the YAML is nested too deeply; give a list of tags") from None


def _tag_from_entry(entry: Any, where: str) -> Tag:
    if isinstance(entry, str):
        return Tag(_tidy(entry))
    invalid = InputError(
        f"{where}: got {quoted(entry)}; {_SHAPE} (quote words such as 'no' and '7')"
    )
    if not isinstance(entry, dict):
        raise invalid
    unknown = [key for key in entry if key not in _KEYS]
    if unknown or "name" not in entry:
        problem = f"unknown [{listed(map(quoted, unknown))}]" if unknown else "no `name`"
        raise InputError(f"{where}: {problem}; {_SHAPE}")
    synonyms = entry.get("synonyms") or []
    words = [entry["name"], *(synonyms if isinstance(synonyms, list) else [synonyms])]
    if not all(isinstance(word, str) for word in words):
        raise invalid
    name, *others = dict.fromkeys(map(_tidy, words))
    return Tag(name, tuple(others))


def _tidy(word: str) -> str:
    return re.sub(r"\s+", " ", unicodedata.normalize("NFC", word)).strip()


def _check_word(word: str, name: str, source: str) -> None:
    if not any(character.isalnum() for character in word):
        problem = "has no letter or digit" if word else "is empty"
        raise InputError(
            f"{source}: {quoted(word)} (tag {quoted(name)}) {problem}; remove it or give it a name"
        )


def _check_owners(tags: tuple[Tag, ...], source: str) -> None:
    """Raise InputError with every word that belongs to two tags."""
    owners: dict[str, int] = {}
    problems = []
    for index, tag in enumerate(tags):
        for word in tag.words:
            key = unicodedata.normalize("NFC", word).casefold()
            owner = owners.setdefault(key, index)
            if owner == index:
                continue
            first = tags[owner].name
            if key == tag.name.casefold() == first.casefold():
                problems.append(f"the tag {quoted(word)} stands twice")
            else:
                problems.append(
                    f"{quoted(word)} belongs to two tags, {quoted(first)} and {quoted(tag.name)}"
                )
    if problems:
        raise InputError(f"{source}: {listed(problems)}; leave each word with one tag")

"""The package's photographs, and how far tags agree with what each shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json

__all__ = ["FILES", "FOLDER", "Agreement", "PictureTags", "photographs"]

# truth.json: the tags of each photograph. LICENSES.md: where each is from.
FILES = Path(__file__).resolve().parent / "files"
FOLDER = FILES / "photographs"


@dataclass(frozen=True)
class PictureTags:
    """A photograph's tags.

    Attributes:
        name: its file name.
        shown: the tags that it shows.
        on: the tags that are on, best score first.
        best: the tag with the best score, on or not.
    """

    name: str
    shown: frozenset[str]
    on: tuple[str, ...]
    best: str


@dataclass(frozen=True)
class Agreement:
    """Counts over all photographs and tags.

    Attributes:
        right: tags that are on and shown.
        missed: tags that are shown and off.
        wrong: tags that are on and not shown.
        best: photographs that show their tag with the best score.
    """

    right: int
    missed: int
    wrong: int
    best: int

    @classmethod
    def of(cls, pictures: Iterable[PictureTags]) -> Agreement:
        """Count the tags of pictures."""
        pictures = tuple(pictures)
        return cls(
            right=sum(len(p.shown & set(p.on)) for p in pictures),
            missed=sum(len(p.shown - set(p.on)) for p in pictures),
            wrong=sum(len(set(p.on) - p.shown) for p in pictures),
            best=sum(p.best in p.shown for p in pictures),
        )

    @property
    def micro_f1(self) -> float:
        """F1 over all pairs of a photograph and a tag, 0 to 1; 0 where no tag is shown or on."""
        tags = 2 * self.right + self.missed + self.wrong
        return 2 * self.right / tags if tags else 0.0


def photographs() -> dict[str, frozenset[str]]:
    """The tags that each of the package's photographs shows, by file name.

    Raises:
        InputError: a file is missing from the installation.
    """
    try:
        document = parse_json((FILES / "truth.json").read_text("utf-8"))
        for name in document:
            (FOLDER / name).stat()
    except FileNotFoundError as error:
        raise InputError(
            f"{error.filename} is missing from this installation: install taidpt again"
        ) from None
    return {name: frozenset(tags) for name, tags in document.items()}

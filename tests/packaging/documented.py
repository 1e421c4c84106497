"""The command lines that the documents show."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support import REPOSITORY

__all__ = ["PROGRAMS", "CommandLine", "command_lines", "inline_lines"]

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "examples/*.md")
# Programs whose lines are looked for in running text, between backquotes.
PROGRAMS = ("taidpt", "taidpt-export", "python", "pytest", "make", "pip", "ctest", "docker")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = ("", "bash", "sh", "console")
# Lines of blocks without a language that are formulas, captions and printed tables.
NO_COMMANDS = re.compile(r"\w+\[c\] |a man walks|two bikes|tag  +on|elephant|backpack")
# What may stand before a program without changing what it does.
PREFIX = re.compile(r"^(sudo( -u \w+)?|env|time|[A-Z_]+=\S+)$")


@dataclass(frozen=True)
class CommandLine:
    """One line of a document.

    Attributes:
        document: its path.
        text: the line, without a comment, continued lines joined.
    """

    document: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The words, without what changes the user or the environment alone."""
        words = shlex.split(self.text)
        while words and (PREFIX.match(words[0]) or words[0] == "-u"):
            words = words[3:] if words[:2] == ["sudo", "-u"] else words[1:]
        return words


def _texts() -> Iterator[tuple[str, str]]:
    for pattern in DOCUMENTS:
        for path in sorted(REPOSITORY.glob(pattern)):
            yield path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8")


def command_lines() -> Iterator[CommandLine]:
    """The lines of code blocks that are a shell's, each part of a pipe or a list by itself."""
    for document, text in _texts():
        for language, block in FENCE.findall(text):
            if language not in SHELLS:
                continue
            for line in block.replace("\\\n", " ").splitlines():
                bare = re.sub(r"\s+#\s.*$", "", line).strip()
                if NO_COMMANDS.match(bare):
                    continue
                for part in re.split(r"\s+(?:&&|\|)\s+", bare):
                    if part:
                        yield CommandLine(document, part)


def inline_lines() -> Iterator[CommandLine]:
    """Lines between backquotes in running text, which may leave parts out with an ellipsis."""
    programs = "|".join(PROGRAMS)
    for document, text in _texts():
        running = FENCE.sub("", text).replace("\n", " ")
        for line in re.findall(rf"`((?:{programs}) [^`]+)`", running):
            yield CommandLine(document, line)

"""The error tree of the whole project; standard library only.

    TaidptError                  exit code 2
    ├── InputError               also ValueError: a file, a frame or an option that is not valid
    ├── BundleError              also RuntimeError: a damaged, newer or incomplete bundle or bank
    ├── MissingDependencyError   also ImportError: an optional package is not installed
    ├── BackendError             also RuntimeError: an inference backend failed or is missing
    │   └── EngineNotBuiltError  exit code 3: the requested engine could not be built
    └── ParityError              also RuntimeError, exit code 1: a comparison of results failed

A message is one line: what failed, what was given, what was expected, and the next command.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BundleError",
    "EngineNotBuiltError",
    "InputError",
    "MissingDependencyError",
    "ParityError",
    "TaidptError",
    "one_line",
]


# Bytes of a path and of a line of the user's input fit; a file of it does not.
_LONGEST = 1200


def one_line(text: object) -> str:
    """A text as one printable line, for errors and logs.

    Line breaks become blanks; other control characters, direction marks and halves of surrogate
    pairs become escapes, so that nothing reaches a terminal as a command. A long text loses its
    middle: its end has the advice.
    """
    line = " ".join(str(text).splitlines())
    if not line.isprintable():
        shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        line = "".join(shown)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} … {line[-half:]}"


class TaidptError(Exception):
    """Base of all errors that the project raises deliberately; its text is one printable line.

    Attributes:
        exit_code: exit code of a command that ends with this error.
    """

    exit_code = 2

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(TaidptError, ValueError):
    """A file, a frame or an option of the user is not valid."""


class BundleError(TaidptError, RuntimeError):
    """A bundle or a bank is damaged, incomplete, or of a newer schema."""


class MissingDependencyError(TaidptError, ImportError):
    """A required optional package is not installed."""


class BackendError(TaidptError, RuntimeError):
    """An inference backend failed, or is not available on this machine."""


class EngineNotBuiltError(BackendError):
    """The requested engine could not be built on this machine."""

    exit_code = 3


class ParityError(TaidptError, RuntimeError):
    """Two implementations of one result differ by more than the bound."""

    exit_code = 1

"""The error tree of the whole project; standard library only.

    TaidptError                  exit code 2
    ├── InputError               also ValueError: a file, a frame, an option of the user
    ├── BundleError              also RuntimeError: a bundle that is damaged, newer, or incomplete
    ├── MissingDependencyError   also ImportError: an optional package is not installed
    ├── BackendError             also RuntimeError: an inference backend failed or is not there
    │   └── EngineNotBuiltError  exit code 3: an engine was asked for and not built
    └── ParityError              also RuntimeError, exit code 1: a check of results failed

A message is one line: what failed, what came, what was expected, and how to mend it.
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
]


class TaidptError(Exception):
    """Base of every error that the project raises on purpose.

    Attributes:
        exit_code: what a command ends with when this error reaches it.
    """

    exit_code = 2


class InputError(TaidptError, ValueError):
    """Something that the user gave cannot be used as it is."""


class BundleError(TaidptError, RuntimeError):
    """A bundle is damaged, incomplete, or of a schema that this version does not know."""


class MissingDependencyError(TaidptError, ImportError):
    """An optional package is needed and not installed."""


class BackendError(TaidptError, RuntimeError):
    """An inference backend failed or cannot be used on this machine."""


class EngineNotBuiltError(BackendError):
    """An engine was asked for and could not be built here."""

    exit_code = 3


class ParityError(TaidptError, RuntimeError):
    """Two ways to compute the same result disagree by more than the bound."""

    exit_code = 1

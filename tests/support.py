"""What every test room shares: optional parts and where outside material lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["REPOSITORY", "require", "shared_data"]

REPOSITORY = Path(__file__).resolve().parent.parent


def require(part: str, present: bool, reason: str) -> None:
    """Go on when an optional part is there; else skip, or fail where it is named as required.

    Args:
        part: its name as listed, comma-separated, in the environment's TAIDPT_REQUIRE.
        present: whether it was found.
        reason: what is missing and how to get it.
    """
    if present:
        return
    if part in os.environ.get("TAIDPT_REQUIRE", "").split(","):
        pytest.fail(f"{part} is required here and missing: {reason}", pytrace=False)
    pytest.skip(f"{part}: {reason}")


def shared_data(relative: str) -> Path:
    """The path of outside material (captions, photographs), or skip when it is not there."""
    root = Path(os.environ.get("TAIDPT_SHARED", REPOSITORY.parent / "shared"))
    path = root / relative
    if not path.exists():
        pytest.skip(f"outside material is not here: {path}")
    return path

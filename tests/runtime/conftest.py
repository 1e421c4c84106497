"""Bundles and videos that the runtime's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import tiny_bundle
from tests.runtime.videos import colour_video


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle that no test may change."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny.taidpt")


@pytest.fixture(scope="session")
def tagger(bundle_path: Path) -> Iterator[Tagger]:
    """A tagger of the tiny bundle on the CPU."""
    with Tagger.load(bundle_path, device="cpu", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds at 25 frames a second; the colour changes each second."""
    return colour_video(tmp_path_factory.mktemp("video") / "colours.mp4")

"""Bundles, videos and tagged frames that the runtime's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from taidpt.runtime.stream.moment import Moment
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE
from tests.runtime.tiny import TinySpec, tiny_bundle
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


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    """A tagger with hostile tag names; all of its tags are on."""
    folder = tmp_path_factory.mktemp("hostile")
    spec = TinySpec(names=HOSTILE, thresholds=(-9.0,))
    return Tagger.load(tiny_bundle(folder / "hostile.taidpt", spec), device="cpu")


@pytest.fixture(scope="session")
def hostile_moments(hostile: Tagger, video_path: Path) -> list[Moment]:
    """Ten moments of a video."""
    return list(hostile.stream(video_path, every=10))


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory, video_path: Path) -> list[Moment]:
    """All moments of a video in which tags go on and off."""
    path = tmp_path_factory.mktemp("lively") / "lively.taidpt"
    with Tagger.load(tiny_bundle(path, TinySpec(thresholds=(1.0,))), device="cpu") as tagger:
        return list(tagger.stream(video_path))

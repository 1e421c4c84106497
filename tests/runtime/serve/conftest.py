"""One server for the tests of a module; without the extra `serve` there are none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.tiny import TinySpec, tiny_bundle

if TYPE_CHECKING:
    from tests.runtime.serve.server import Server

if importlib.util.find_spec("starlette") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def swappable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle whose tags can be replaced."""
    spec = TinySpec(bank_as="input", thresholds=(1.0,))
    return tiny_bundle(tmp_path_factory.mktemp("swappable") / "swappable.taidpt", spec)


@pytest.fixture(scope="module")  # its cameras tag frames as long as it lives
def server(
    swappable: Path, video_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Two cameras that show four colours in turn; no test may change its tags."""
    from tests.runtime.serve.server import running

    data = tmp_path_factory.mktemp("data")
    source = str(video_path)
    with running(swappable, data, source, source, max_fps=10.0, min_on=0.0) as server:
        yield server

"""Small random CLIPs, built once a session."""

from __future__ import annotations

import pytest

from taidpt.clip.model import ClipModel
from tests.taidpt.tiny import VIT, make_clip


@pytest.fixture(scope="session")
def resnet_clip() -> ClipModel:
    return make_clip()


@pytest.fixture(scope="session")
def vit_clip() -> ClipModel:
    return make_clip(VIT)

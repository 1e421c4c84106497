"""Small random CLIPs, built once a session."""

from __future__ import annotations

import pytest

from taidpt.clip.model import ClipModel
from taidpt.tuning import tuner
from tests.taidpt.tiny import VIT, make_clip

_TEMPLATES = 89  # of a class, one after the other


@pytest.fixture
def few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning adds one template a class to the texts, not 89, which take most of a short run."""
    texts = tuner.template_texts
    monkeypatch.setattr(tuner, "template_texts", lambda names: texts(names)[::_TEMPLATES])


@pytest.fixture(scope="session")
def resnet_clip() -> ClipModel:
    return make_clip()


@pytest.fixture(scope="session")
def vit_clip() -> ClipModel:
    return make_clip(VIT)

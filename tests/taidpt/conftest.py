"""Small random CLIPs, built once a session."""

from __future__ import annotations

import pytest

from taidpt.clip.model import ClipModel
from taidpt.tuning import tuner
from tests.taidpt.tiny import VIT, make_clip


@pytest.fixture
def few_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning adds one template a class to the texts, not 89, which take most of a short run."""
    _thin_out_templates(monkeypatch, 89)


@pytest.fixture
def fewer_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuning adds eight templates a class: enough texts for some steps an epoch."""
    _thin_out_templates(monkeypatch, 11)


def _thin_out_templates(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    texts = tuner.template_texts
    monkeypatch.setattr(tuner, "template_texts", lambda names: texts(names)[::step])


@pytest.fixture(scope="session")
def resnet_clip() -> ClipModel:
    return make_clip()


@pytest.fixture(scope="session")
def vit_clip() -> ClipModel:
    return make_clip(VIT)

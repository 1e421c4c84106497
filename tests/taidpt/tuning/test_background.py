"""Background tags in tuning: they compete, they are not in the result, and they are chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from taidpt.clip.model import ClipModel, load, resolve_source
from taidpt.progress import SilentProgress
from taidpt.runtime.errors import InputError
from taidpt.texts.tags import Tag, TagSet
from taidpt.tuning import text_job
from taidpt.tuning.background import unrelated
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, run_job
from taidpt.tuning.tuner import tune
from tests.taidpt.tuning.tuning_case import SETTINGS, TAGS, TEXTS

CAPTIONS = ("a zebra on grass", "two zebras", "a kite", "a book on a table", "a boat at sea") * 4


class Notes(SilentProgress):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def few_nouns(monkeypatch: pytest.MonkeyPatch, few_templates: None) -> None:
    """Six nouns in place of a hundred, for speed."""
    nouns = tuple(map(Tag, ("grass", "table", "sea", "clock", "pizza", "person")))
    monkeypatch.setattr(text_job, "background_tags", lambda tags: nouns)


def job(names: list[str], **changes: Any) -> TuneJob:
    values: dict[str, Any] = {
        "model": "toyworld",
        "pretrained": "embedded",
        "tags": TagSet.from_names(names),
        "texts": (),
        "captions": CAPTIONS,
        "output": None,
        "settings": TuneSettings(epochs=2, batch=128, lr=1e-3),
    }
    return TuneJob(**{**values, **changes})


def test_one_tag_is_tuned_against_background_tags() -> None:
    progress = Notes()
    prompts = run_job(job(["zebra"]), progress)
    assert prompts.names == ("zebra",)
    assert len(prompts.thresholds) == 1
    assert min(prompts.provenance["losses"]) > 0
    assert "grass" in prompts.provenance["background"]
    assert any("background tags" in note for note in progress.notes)
    again = run_job(job(["zebra"], settings=TuneSettings(epochs=1, batch=128)), Notes())
    assert not torch.equal(again.contexts["global"], prompts.contexts["global"])


def test_one_tag_without_background_is_refused() -> None:
    with pytest.raises(InputError, match="'kite' alone has nothing to be told apart from"):
        run_job(job(["kite"], background=False), Notes())


def test_few_tags_have_background_tags_by_default_and_more_do_not() -> None:
    names = ["zebra", "kite", "book", "boat"]
    few = run_job(job(names[:2]), Notes())
    assert few.provenance["background"]
    assert few.names == ("zebra", "kite")
    assert not run_job(job(names), Notes()).provenance["background"]
    assert run_job(job(names, background=True), Notes()).provenance["background"]
    assert not run_job(job(names[:2], background=False), Notes()).provenance["background"]


def test_background_tags_equal_further_tags_but_for_the_result(resnet_clip: ClipModel) -> None:
    whole = tune(resnet_clip, TAGS, TEXTS, SETTINGS)
    part = tune(resnet_clip, TAGS[:3], TEXTS, SETTINGS, background=TAGS[3:])
    for name, context in whole.contexts.items():
        torch.testing.assert_close(part.contexts[name], context, rtol=0, atol=0)
    assert part.names == whole.names[:3]
    assert len(part.thresholds) == 3
    assert part.provenance["background"] == ["bus"]


def test_class_specific_contexts_of_background_tags_are_dropped(resnet_clip: ClipModel) -> None:
    settings = replace(SETTINGS, epochs=1, prompt=replace(SETTINGS.prompt, class_specific=True))
    prompts = tune(resnet_clip, TAGS[:3], TEXTS, settings, background=TAGS[3:])
    assert prompts.contexts["global"].shape[0] == 3


def test_one_tag_alone_is_noted(resnet_clip: ClipModel) -> None:
    progress = Notes()
    texts = [("a dog", (0,)), ("two dogs", (0,))]
    tune(resnet_clip, TAGS[:1], texts, replace(SETTINGS, epochs=1), progress=progress)
    assert any("prompts stay random" in note for note in progress.notes)


def test_nouns_that_the_model_confuses_with_a_tag_are_related() -> None:
    clip = load(resolve_source("toyworld", "embedded", 0))
    nouns = [Tag(name) for name in ("clock", "couch", "pizza", "chair", "boat", "umbrella", "kite")]
    kept = {nouns[index].name for index in unrelated(clip, [Tag("sofa")], nouns)}
    assert kept == {"clock", "pizza", "chair", "boat", "umbrella", "kite"}


def test_no_nouns_are_no_error(resnet_clip: ClipModel) -> None:
    assert unrelated(resnet_clip, TAGS, []) == []

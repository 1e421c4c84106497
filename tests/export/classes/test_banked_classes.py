"""A class bank is exported like prompts: methods that are free at run time become bundles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from taidpt.clip.model import load_clip
from taidpt.datasets import load_dataset
from taidpt.encoders.picture_input import PictureInput
from taidpt.evaluation.methods import MethodInputs, method_bank, methods_with_bank, score_method
from taidpt.export.classes.banked_classes import load_classes
from taidpt.export.exporter import ExportOptions, export_bundle
from taidpt.features.picture_store import StoreSettings, store_features
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.picture_files import read_image
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.scores import merged_scores
from taidpt.tuning.picture_features import mask_labels
from taidpt.tuning.settings import settings_of
from taidpt.tuning.tuner import tune_on_pictures


def test_a_combined_head_exports_to_the_scores_that_were_evaluated(tmp_path: Path) -> None:
    clip = load_clip("toyworld", "embedded")
    images = load_dataset("toyworld", tmp_path).subset(range(0, 522, 100))
    texts = [(f"a {name} here", (row,)) for row, name in enumerate(images.classes)] * 3
    inputs = MethodInputs(clip, images.tags, texts)
    name = "clipdpt+linear+centroids"
    features = store_features(clip, images, tmp_path / "cache", StoreSettings("fp32"))
    scores = score_method(name, inputs, features)
    path = tmp_path / "combined.bank"
    method_bank(name, inputs, merge_weight=0.3).save(path)

    bundle = export_bundle(path, tmp_path / "combined.taidpt")
    assert bundle.manifest.provenance["tuning"] == {"method": name}
    found = Tagger.load(bundle.path)([read_image(picture) for picture in images.paths])
    expected = merged_scores(scores["global"], scores["local"], 0.3)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.scores, expected, atol=2e-3)
    assert np.abs(found.scores - merged_scores(scores["global"], scores["local"])).max() > 0.02  # type: ignore[arg-type]


def test_dualcoop_of_another_picture_size_exports_through_the_second_bank(tmp_path: Path) -> None:
    images = load_dataset("toyworld", tmp_path).subset(range(0, 522, 60))
    clip = load_clip("toyworld", "embedded")
    store = StoreSettings("fp32", picture=PictureInput(128, "whole", "self"))
    features = store_features(clip, images, tmp_path / "cache", store)
    settings = replace(settings_of("dualcoop"), epochs=3, batch=8)
    labels = mask_labels(torch.from_numpy(images.targets.astype(np.float32)), 0.5, seed=0)
    prompts = tune_on_pictures(clip, images.tags.tags, features, labels, settings)
    prompts = replace(prompts, picture=store.picture)
    scores = score_method(
        "dualcoop", MethodInputs(clip, images.tags, prompts={"dualcoop": prompts}), features
    )
    path = tmp_path / "dual.safetensors"
    prompts.save(path)

    bundle = export_bundle(path, tmp_path / "dual.taidpt", ExportOptions(view="auto"))
    assert bundle.manifest.input.view.kind == "whole"
    assert bundle.manifest.model.local_branch == "self"
    assert (bundle.manifest.input.height, bundle.manifest.model.grid) == (128, (4, 4))
    assert bundle.parity.passed
    tagger = Tagger.load(bundle.path)
    assert tagger.bundle.bank.value_embeddings is not None
    # The toy world's pictures are square: a centre crop is the whole picture.
    found = tagger([read_image(picture) for picture in images.paths])
    np.testing.assert_allclose(found.scores, scores["global"], atol=2e-2)
    assert np.std(scores["global"]) > 0.5


def test_methods_without_rows_say_what_to_export_instead() -> None:
    names = ("zsclip", "clipdpt", "dualcoop", "linear")
    assert methods_with_bank(names) == ["clipdpt", "linear"]
    inputs = MethodInputs(load_clip("toyworld", "embedded"), tags=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'zsclip' has no bank: .* clipdpt exports"):
        method_bank("zsclip", inputs)
    with pytest.raises(InputError, match="export its prompts file itself"):
        method_bank("dualcoop", inputs)


def test_a_bank_that_does_not_name_its_model_is_refused(tmp_path: Path) -> None:
    rows = np.eye(2, dtype=np.float32)
    path = tmp_path / "a.bank"
    bank = ClassBank.from_rows(("cat", "dog"), rows, rows)
    bank.save(path)
    with pytest.raises(InputError, match=r"a\.bank: .*model.*make the bank again"):
        load_classes(path)
    model = {"name": "toyworld", "pretrained": "embedded", "weights_sha256": "0" * 64}
    replace(bank, metadata={"model": model}).save(path)
    with pytest.raises(InputError, match=r"made with toyworld and .*sha256 000000000000"):
        export_bundle(path, tmp_path / "a.taidpt")

"""Rows that fit a scene: better where they can be, kept where not, thresholds moved along."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.metrics import mean_average_precision
from taidpt.runtime.adapting.scene_rows import adapt_bank
from taidpt.runtime.adapting.similarity import Features, bank_scores
from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import InputError
from tests.runtime.adapting.made_scenes import TAGS, made_scene, noise_scene, unit

SCORING = Scoring()
Array = npt.NDArray[Any]


def precision(features: Features, shown: Array, bank: ClassBank) -> float:
    return mean_average_precision(bank_scores(features, bank, SCORING), shown.astype(int)).value


def test_rows_become_better_on_frames_that_were_not_seen() -> None:
    bank, learned, _ = made_scene(seed=0)
    _, judged, shown = made_scene(seed=0, part=1)
    found = adapt_bank(bank, learned, SCORING)
    assert found.weight > 0
    assert found.after > found.before
    assert precision(judged, shown, found.bank) > precision(judged, shown, bank) + 2
    np.testing.assert_array_equal(found.bank.global_embeddings, bank.global_embeddings)


def test_scores_on_the_frames_keep_their_mean_and_spread() -> None:
    bank, learned, _ = made_scene(seed=1)
    found = adapt_bank(bank, learned, SCORING)
    before, after = (bank_scores(learned, one, SCORING) for one in (bank, found.bank))
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(after.std(axis=0), before.std(axis=0), rtol=1e-3)
    sources = [threshold.source for threshold in found.bank.thresholds]
    changed = [tag.changed for tag in found.tags]
    assert any(changed)
    assert [source.endswith(", before adapting") for source in sources] == changed
    again = adapt_bank(found.bank, learned, SCORING).bank.thresholds
    assert all(threshold.source.count("before adapting") < 2 for threshold in again)


def test_a_tag_without_confident_patches_keeps_its_row() -> None:
    bank, learned, _ = made_scene(seed=0)
    absent = unit(-learned.patches.mean(axis=(0, 1)))
    local = np.concatenate([bank.local_embeddings, absent[None]]).astype(np.float32)
    whole = np.concatenate([bank.global_embeddings, absent[None]]).astype(np.float32)
    maps = ({"scores": [-9.0, 9.0], "probabilities": [0.0, 1.0]},) * (TAGS + 1)
    more = ClassBank.from_rows(
        (*bank.names, "absent"),
        whole,
        local,
        thresholds=(*bank.thresholds, Threshold(1.0, 0.9, "calibrated")),
        probabilities=maps,
    )
    found = adapt_bank(more, learned, SCORING)
    assert found.tags[-1].why_kept == "no confident patch"
    assert not found.tags[-1].changed
    for part in ("local_embeddings", "scale", "bias", "thresholds", "probabilities"):
        assert np.array_equal(getattr(found.bank, part)[-1], getattr(more, part)[-1]), part
    assert found.bank.probabilities[0] is None  # it was for the old scores


def test_noise_changes_nothing() -> None:
    bank, _, _ = made_scene(seed=0)
    found = adapt_bank(bank, noise_scene(), SCORING)
    assert not found.helps
    assert found.bank is bank


def test_rows_that_are_right_already_lose_nothing() -> None:
    bank, learned, _ = made_scene(seed=4, error=0.0)
    _, judged, shown = made_scene(seed=4, error=0.0, part=1)
    found = adapt_bank(bank, learned, SCORING)
    assert precision(judged, shown, found.bank) > precision(judged, shown, bank) - 0.5


@pytest.mark.parametrize("count", [1, 15])
def test_too_few_frames_are_one_line(count: int) -> None:
    bank, learned, _ = made_scene(seed=0)
    few = Features(learned.whole[:count], learned.patches[:count])
    with pytest.raises(InputError, match=rf"{count} frames?: adapting needs at least 16"):
        adapt_bank(bank, few, SCORING)


def test_frames_that_are_all_the_same_are_one_line() -> None:
    bank, learned, _ = made_scene(seed=0)
    same = Features(learned.whole[[0] * 20], learned.patches[[0] * 20])
    with pytest.raises(InputError, match="all the same"):
        adapt_bank(bank, same, SCORING)


def test_banks_and_scores_that_cannot_be_adapted_are_one_line() -> None:
    bank, learned, _ = made_scene(seed=0)
    dual = dataclasses.replace(bank, value_embeddings=bank.local_embeddings)
    with pytest.raises(InputError, match="value embeddings"):
        adapt_bank(dual, learned, SCORING)
    with pytest.raises(InputError, match="merge weight 0"):
        adapt_bank(bank, learned, Scoring(merge_weight=0.0))


def test_global_features_of_tiles_are_taken() -> None:
    bank, learned, _ = made_scene(seed=0)
    tiles = Features(np.stack([learned.whole, -learned.whole], axis=1), learned.patches)
    twice = bank_scores(tiles, bank, SCORING)
    assert twice.shape == (len(learned), TAGS)
    assert (twice >= bank_scores(learned, bank, SCORING) - 1e-5).all()
    assert adapt_bank(bank, tiles, SCORING).weight >= 0

"""Thresholds carried from texts to pictures."""

from __future__ import annotations

import numpy as np
import torch

from taidpt.clip import ClipModel
from taidpt.modality_gap import carry_over, made_up_features, made_up_pictures
from taidpt.runtime.bank import Threshold


def test_thresholds_keep_their_distance_in_spreads() -> None:
    texts, pictures = np.array([0.0, 2.0]), np.array([1.0, 1.5])  # mean 1 ± 1, mean 1.25 ± 0.25
    (found,) = carry_over([Threshold(3.0, 2.0, "from texts")], texts, pictures)
    assert (found.on, found.off, found.source) == (1.75, 1.5, "from texts")


def test_equal_scores_change_nothing() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 4))
    (found,) = carry_over([Threshold(0.7, 0.5, "x")], scores, scores)
    np.testing.assert_allclose([found.on, found.off], [0.7, 0.5])


def test_made_up_pictures_are_the_same_each_time_and_differ() -> None:
    pictures = made_up_pictures(32, 6)
    assert pictures.shape == (6, 32, 32, 3)
    assert np.array_equal(pictures, made_up_pictures(32, 6))
    assert len({picture.tobytes() for picture in pictures}) == 6
    assert pictures.std(axis=(1, 2)).min() > 2
    neighbours = np.abs(np.diff(pictures.astype(float), axis=1)).mean(axis=(1, 2, 3))
    assert neighbours[1::2].max() < neighbours[::2].min()  # smooth ones, grainy ones


def test_made_up_features_are_unit_rows(vit_clip: ClipModel, resnet_clip: ClipModel) -> None:
    for clip, patches in ((vit_clip, 9), (resnet_clip, 9)):
        features = made_up_features(clip)
        assert features.tokens.shape == (48, patches, 32)
        torch.testing.assert_close(features.pooled.norm(dim=-1), torch.ones(48))

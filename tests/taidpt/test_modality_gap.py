"""Where pictures score, from made-up pictures and from what is expected of others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from taidpt.calibration.statistics.sample import TYPICAL_LIFT
from taidpt.clip.model import ClipModel
from taidpt.features.made_up_pictures import made_up_features, made_up_pictures
from taidpt.text_thresholds import Background, expected_densities


def test_the_background_spreads_as_scores_of_one_tag_do() -> None:
    scores = np.array([[0.0, 10.0], [2.0, 12.0]])  # tags lie 10 apart, which is no spread of either
    assert Background.of(scores) == Background(6.0, 1.0)
    assert Background.of(np.full((3, 2), 4.0)).spread > 0


def test_pictures_with_a_tag_are_expected_above_those_without() -> None:
    places = np.linspace(-12, 18, 3001)
    without, with_tag = expected_densities(places)
    assert np.trapezoid(with_tag, places) == pytest.approx(np.trapezoid(without, places), rel=1e-3)
    middles = [np.average(places, weights=found) for found in (without, with_tag)]
    assert middles[0] == pytest.approx(0, abs=1e-3)
    assert middles[1] == pytest.approx(TYPICAL_LIFT * np.exp(0.36**2 / 2), rel=1e-3)
    ratio = with_tag / without
    assert (np.diff(ratio[(places > -1) & (places < 5)]) > 0).all()


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

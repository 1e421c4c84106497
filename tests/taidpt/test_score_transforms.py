"""Score transforms on NumPy arrays and on torch tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from taidpt.runtime.errors import InputError
from taidpt.score_transforms import transform_scores


@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_transforms_by_hand(convert: Callable[[Any], Any]) -> None:
    scores = convert([[1.25, 2.25], [-3.0, -4.0]])
    assert transform_scores(scores, "none") is scores
    centred = transform_scores(scores, "center")
    assert type(centred) is type(scores)
    np.testing.assert_allclose(centred, [[-0.5, 0.5], [0.5, -0.5]], rtol=1e-6)
    # The scores differ by 1: the lower becomes −log(1 + e), the higher −log(1 + 1/e).
    low, high = -1.3132617, -0.3132617
    soft = transform_scores(scores, "log_softmax")
    assert type(soft) is type(scores)
    np.testing.assert_allclose(soft, [[low, high], [high, low]], rtol=1e-6)


@pytest.mark.parametrize("convert", [np.array, torch.tensor])
def test_log_softmax_of_large_scores_is_finite(convert: Callable[[Any], Any]) -> None:
    soft = transform_scores(convert([[2000.0, 1999.0]]), "log_softmax")
    np.testing.assert_allclose(soft, [[-0.3132617, -1.3132617]], rtol=1e-6)


def test_unknown_transform_is_refused() -> None:
    with pytest.raises(InputError, match="'softmax': expected one of none, center, log_softmax"):
        transform_scores(np.zeros((1, 2)), "softmax")

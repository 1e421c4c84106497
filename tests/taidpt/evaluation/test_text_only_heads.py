"""Class rows from texts: centroids by hand, a linear head that learns, what a bank holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from taidpt.evaluation.text_only_heads import (
    ClassRows,
    LinearSettings,
    average_rows,
    concept_centroids,
    linear_head,
)
from taidpt.runtime.errors import InputError
from taidpt.tuning.losses import ranking_loss


def features(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator), dim=-1)


def test_centroids_by_hand() -> None:
    captions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    fallback = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]])
    rows = concept_centroids(captions, [(0,), (0, 1), (1,)], fallback)
    half = 0.5**0.5
    torch.testing.assert_close(rows.global_rows[0], torch.tensor([half, half]))
    # (0 + 0.6, 1 + 0.8) / 2, then to unit length.
    expected = F.normalize(torch.tensor([0.3, 0.9]), dim=0)
    torch.testing.assert_close(rows.global_rows[1], expected)
    torch.testing.assert_close(rows.global_rows[2], fallback[2])
    assert rows.local_rows is rows.global_rows


def test_linear_head_lowers_its_loss_and_repeats_itself() -> None:
    centres = features(3)
    labels = [(number % 3,) for number in range(90)]
    captions = F.normalize(centres[[label[0] for label in labels]] + 0.3 * features(90, 1), dim=-1)
    targets = torch.full((90, 3), -1.0)
    targets[range(90), [label[0] for label in labels]] = 1.0
    start = features(3, seed=2)

    def loss(rows: ClassRows) -> float:
        scores = rows.scale * (captions @ rows.global_rows.T) + rows.bias
        return float(ranking_loss(scores, targets))

    settings = LinearSettings(epochs=60, batch=30, lr=0.02)
    first, second = (linear_head(captions, labels, start, settings) for _ in range(2))
    assert loss(first) < 0.3 * loss(ClassRows.of(start))
    torch.testing.assert_close(first.global_rows, second.global_rows, rtol=0, atol=0)
    assert not torch.equal(
        first.global_rows,
        linear_head(captions, labels, start, replace(settings, seed=1)).global_rows,
    )


def test_a_bank_holds_unit_rows_scale_and_bias() -> None:
    rows = linear_head(features(40), [(n % 2,) for n in range(40)], features(2, 1))
    bank = rows.bank(("cat", "dog"))
    np.testing.assert_allclose(np.linalg.norm(bank.global_embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(bank.scale, rows.scale.numpy())
    np.testing.assert_allclose(bank.bias, rows.bias.numpy())


def test_average_is_the_direction_of_the_mean() -> None:
    first, second = (ClassRows.of(torch.eye(2)), ClassRows.of(torch.eye(2).flip(0)))
    half = 0.5**0.5
    torch.testing.assert_close(average_rows([first, second]).global_rows, torch.full((2, 2), half))
    with pytest.raises(InputError, match="nothing to average"):
        average_rows([])


def test_features_and_labels_have_to_fit() -> None:
    with pytest.raises(InputError, match="3 caption features for 2 labelled captions"):
        concept_centroids(features(3), [(0,), (1,)], features(2))
    with pytest.raises(InputError, match="0 caption features"):
        linear_head(features(0), [], features(2))

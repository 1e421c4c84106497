"""Losses on cases small enough for pen and paper, and against their plain forms."""

from __future__ import annotations

import math

import pytest
import torch

from taidpt.runtime.errors import InputError
from taidpt.tuning import losses
from taidpt.tuning.losses import asymmetric_loss, bce_loss, focal_loss, loss_by_name, ranking_loss
from tests.taidpt.plain import plain_ranking_loss


def test_ranking_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.5, -1.0], [0.0, 0.5, 3.0]])
    labels = torch.tensor([[1.0, -1.0, -1.0], [1.0, 1.0, -1.0]])
    # caption 1: 1 − 2 + 1.5 = 0.5 and max(0, 1 − 2 − 1) = 0
    # caption 2: 1 − 0 + 3 = 4 and 1 − 0.5 + 3 = 3.5
    torch.testing.assert_close(ranking_loss(scores, labels), torch.tensor((0.5 + 7.5) / 2))


def test_ranking_loss_leaves_unknown_labels_out() -> None:
    scores = torch.tensor([[2.0, 1.5, 5.0]])
    labels = torch.tensor([[1.0, -1.0, 0.0]])
    torch.testing.assert_close(ranking_loss(scores, labels), torch.tensor(0.5))


@pytest.mark.parametrize("rows", [1024, 7])
def test_ranking_loss_equals_all_pairs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_PAIR_ROWS", rows)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(33, 17, generator=generator, dtype=torch.float64).requires_grad_(True)
    has = (torch.rand(33, 17, generator=generator) < 0.15).double()
    ours, plain = ranking_loss(scores, 2 * has - 1), plain_ranking_loss(scores, has)
    torch.testing.assert_close(ours, plain)
    (got,) = torch.autograd.grad(ours, scores)
    (expected,) = torch.autograd.grad(plain, scores)
    torch.testing.assert_close(got, expected)


def test_ranking_loss_of_texts_without_positives_is_zero_with_a_gradient() -> None:
    scores = torch.ones(2, 3, requires_grad=True)
    loss = ranking_loss(scores, -torch.ones(2, 3))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_asymmetric_loss_by_hand() -> None:
    # sigmoid(0) = 0.5: positive (1 − 0.5)¹ · −log 0.5; negative p_m = 0.45: 0.45² · −log 0.55
    scores, labels = torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 0.0]])
    expected = 0.5 * math.log(2) + 0.45**2 * -math.log(0.55)
    torch.testing.assert_close(asymmetric_loss(scores, labels), torch.tensor(expected))


def test_asymmetric_loss_drops_easy_negatives_and_holds_its_weight_constant() -> None:
    easy = torch.full((1, 1), -4.0, requires_grad=True)  # p = 0.018, below the clip of 0.05
    loss = asymmetric_loss(easy, -torch.ones(1, 1))
    loss.backward()
    assert float(loss.detach()) == 0.0
    positive = torch.zeros(1, 1, requires_grad=True)
    asymmetric_loss(positive, torch.ones(1, 1)).backward()
    # d/ds of −w log sigmoid(s) with w = 0.5 held constant: −w (1 − p) = −0.25
    assert positive.grad is not None
    torch.testing.assert_close(positive.grad, torch.tensor([[-0.25]]))


def test_bce_loss_by_hand() -> None:
    scores, labels = torch.tensor([[0.0, 2.0, 9.0]]), torch.tensor([[1.0, -1.0, 0.0]])
    expected = math.log(2) + math.log(1 + math.exp(2))
    torch.testing.assert_close(bce_loss(scores, labels), torch.tensor(expected))


def test_focal_loss_by_hand() -> None:
    scores, labels = torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[1.0, -1.0, 0.0]])
    expected = (0.25 + 0.75) * 0.25 * math.log(2)
    torch.testing.assert_close(focal_loss(scores, labels), torch.tensor(expected))


def test_losses_by_name() -> None:
    assert loss_by_name("ranking") is ranking_loss
    with pytest.raises(InputError, match="expected one of ranking, asymmetric, bce, focal"):
        loss_by_name("hinge")

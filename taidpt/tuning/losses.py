"""Losses over scores [B, C] and labels [B, C]: 1 positive, −1 negative, 0 unknown (ignored)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.runtime.errors import InputError

__all__ = ["LOSSES", "asymmetric_loss", "bce_loss", "focal_loss", "loss_by_name", "ranking_loss"]

# Positives computed at a time: [1024, C] takes 20 MB at 5,000 tags.
_PAIR_ROWS = 1024


def ranking_loss(scores: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """Batch mean of Σ over positives p and negatives n of `max(0, margin − s_p + s_n)`.

    Captions have one to three positives, so the sum runs over [positives, C] instead of
    [B, C, C]. Source: Guo et al. 2023, eq. 6.
    """
    row, column = (labels > 0).nonzero(as_tuple=True)
    negative = labels < 0
    total = scores.sum() * 0.0
    for start in range(0, len(row), _PAIR_ROWS):
        rows = row[start : start + _PAIR_ROWS]
        positive = scores[rows, column[start : start + _PAIR_ROWS]]
        gaps = F.relu(margin - positive[:, None] + scores[rows])
        total = total + (gaps * negative[rows]).sum()
    return total / len(scores)


def asymmetric_loss(
    scores: Tensor,
    labels: Tensor,
    gamma_positive: float = 1.0,
    gamma_negative: float = 2.0,
    clip: float = 0.05,
) -> Tensor:
    """Asymmetric loss, summed over tags, divided by the batch size.

    With p = sigmoid(score): `−(1 − p)^γ⁺ · log p` for positives and `−p_m^γ⁻ · log(1 − p_m)` with
    `p_m = max(0, p − clip)` for negatives; the focusing weight has no gradient.
    Source: Ridnik et al. 2021 (ASL); the default numbers are DualCoOp's.
    """
    probability = torch.sigmoid(scores)
    kept = (1.0 - probability + clip).clamp(max=1.0)  # 1 − p_m
    fit = torch.where(labels > 0, probability, kept)
    gamma = torch.where(labels > 0, gamma_positive, gamma_negative)
    weight = (1.0 - fit).detach() ** gamma
    losses = -weight * fit.clamp(min=1e-8).log()
    return torch.where(labels == 0, 0.0, losses).sum() / len(scores)


def bce_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy on logits, summed over tags, mean over the batch."""
    losses = F.binary_cross_entropy_with_logits(
        scores, (labels > 0).to(scores.dtype), reduction="none"
    )
    return torch.where(labels == 0, 0.0, losses).sum() / len(scores)


def focal_loss(scores: Tensor, labels: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss on logits, summed over tags, mean over the batch.

    `−α_t (1 − p_t)^γ log p_t` with p_t = p for positives and 1 − p for negatives, and α_t likewise.
    Source: Lin et al. 2017, eq. 5; the default numbers are theirs.
    """
    positive = labels > 0
    log_fit = F.logsigmoid(torch.where(positive, scores, -scores))
    balance = torch.where(positive, alpha, 1.0 - alpha)
    losses = -balance * (1.0 - log_fit.exp()) ** gamma * log_fit
    return torch.where(labels == 0, 0.0, losses).sum() / len(scores)


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "ranking": ranking_loss,
    "asymmetric": asymmetric_loss,
    "bce": bce_loss,
    "focal": focal_loss,
}


def loss_by_name(name: str) -> Loss:
    """A loss with its usual settings; InputError for an unknown name."""
    if name not in LOSSES:
        raise InputError(f"loss {name!r}: expected one of {', '.join(LOSSES)}")
    return LOSSES[name]

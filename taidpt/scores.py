"""The one place where a score is defined.

Global: `4 · cos(g, T_G[c])`. Local: `4 · Σ_j softmax_j(τ · cos(f_j, T_L[c])) · cos(f_j, T_L[c])`.
Merged: `(1 − w) · global + w · local`. Caption tokens and picture patches are scored in the same
way; CLIP's own logit scale is not used. Source: Guo et al. 2023, sections 3.2 and 3.3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from taidpt.kernels.local_similarity import local_similarity
from taidpt.runtime.bank.class_bank import DEFAULT_SCALE, ClassBank
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.score_transforms import transform_scores

__all__ = [
    "SCORE_SCALE",
    "Scoring",
    "bank_outputs",
    "dual_scores",
    "global_scores",
    "local_scores",
    "merged_scores",
]

# The paper's fixed factor on cosine similarities: it sets how strongly the ranking loss's margin
# of 1 separates tags.
SCORE_SCALE = DEFAULT_SCALE


def global_scores(features: Tensor, class_embeddings: Tensor) -> Tensor:
    """Scores of whole pictures or captions.

    Args:
        features: unit rows, [B, D]; or [B, tiles, D], of which each class takes its best tile.
        class_embeddings: unit rows, [C, D].
    Returns:
        [B, C], from −4 to 4.
    """
    scores = SCORE_SCALE * features @ class_embeddings.T
    return scores if features.dim() == 2 else scores.amax(dim=1)


def local_scores(
    features: Tensor,
    class_embeddings: Tensor,
    temperature: float,
    mask: Tensor | None = None,
    values: Tensor | None = None,
) -> Tensor:
    """Scores of patches or tokens, weighted by how well each fits the class.

    Args:
        features: one row per patch or token, [B, P, D].
        class_embeddings: unit rows, [C, D].
        temperature: sharpness of the weights: 50 for captions, 40 for pictures in the paper.
        mask: True where a row counts, [B, P].
        values: rows [C, D] whose similarities are averaged instead (DualCoOp).
    Returns:
        [B, C], from −4 to 4.
    """
    return SCORE_SCALE * local_similarity(features, class_embeddings, temperature, mask, values)


def dual_scores(
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """DualCoOp's logits before their scale: `Σ_j w_j (cos⁺ − cos⁻)`, `w = softmax_j(τ cos⁺)`.

    τ is learned, so it is multiplied into the class rows, `τ cos⁺ = x̂ · (τ p)`, through which the
    operator differentiates without keeping `[B, P, C]`.

    Args:
        features: patches, [B, P, D].
        positive, negative: unit rows, [C, D].
        temperature: τ, a scalar that may require a gradient.
        mask: True where a patch counts, [B, P].
    Returns:
        [B, C].
    """
    return local_similarity(features, temperature * positive, 1.0, mask, positive - negative)


def merged_scores(global_part: Tensor, local_part: Tensor, weight: float = 0.5) -> Tensor:
    """`(1 − weight) · global + weight · local`, [B, C]."""
    return (1.0 - weight) * global_part + weight * local_part


@torch.no_grad()
def bank_outputs(
    bank: ClassBank, scoring: Scoring, pooled: Tensor, tokens: Tensor, mask: Tensor | None = None
) -> dict[str, Tensor]:
    """The scores of a bundle's graph, from unit features of pictures or captions.

    Args:
        bank: C tags, and maybe background tags, which compete in the transform alone.
        scoring: temperature, merge weight and transform.
        pooled: unit rows, [N, D], or [N, tiles, D]. tokens: [N, P, D].
        mask: True where a token counts, [N, P].
    Returns:
        "scores", "global_scores" and "local_scores", each [N, C].
    """
    rows = {name: torch.from_numpy(np.array(row)) for name, row in bank.competing().items()}
    values = rows.get("value_embeddings")
    whole = global_scores(pooled, rows["global_embeddings"])
    local = local_scores(tokens, rows["local_embeddings"], scoring.temperature, mask, values)
    parts = [rows["scale"] / SCORE_SCALE * part + rows["bias"] for part in (whole, local)]
    merged = merged_scores(parts[0], parts[1], scoring.merge_weight)
    found = transform_scores(merged, scoring.transform), *parts
    names = ("scores", "global_scores", "local_scores")
    return {name: one[:, : len(bank.names)] for name, one in zip(names, found, strict=True)}

"""The definitions in plain PyTorch: the truth that every other form is tested against."""

from __future__ import annotations

import torch

__all__ = ["NORM_FLOOR", "competing_similarity", "local_similarity"]

# Rows shorter than this are divided by it instead, so that a zero patch stays zero.
NORM_FLOOR = 1e-12


def local_similarity(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Spatially weighted patch–class similarity of the local branch, written down as defined.

    Args:
        patches: patch features, [B, P, D], any float type; need not be unit length.
        class_embeddings: unit rows, [C, D].
        temperature: softmax sharpness over patches, > 0 (40 for photographs in the paper).
        mask: True where a patch counts, bool, [B, P]; an image with no patch gives 0.
        values: what a patch is weighed for, [C, D]; the class embeddings themselves by default.

    Returns:
        Similarities, [B, C]: float64 for float64 input, else float32.

    Source: Guo et al. 2023, section 3.3; separate values after DualCoOp (Sun et al. 2022).
    """
    unit, dtype = _unit(patches)
    similarity = unit @ class_embeddings.to(dtype).T
    weighed = similarity if values is None else unit @ values.to(dtype).T
    if mask is None:
        return torch.sum(torch.softmax(temperature * similarity, dim=1) * weighed, dim=1)
    seen = mask[:, :, None]
    logits = torch.where(seen, temperature * similarity, torch.finfo(dtype).min)
    return torch.sum(torch.softmax(logits, dim=1) * torch.where(seen, weighed, 0.0), dim=1)


def competing_similarity(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The second read-out: classes compete within a patch, and the best patch counts.

    Args:
        patches, class_embeddings, mask: as of `local_similarity`.
        temperature: sharpness over classes, > 0.

    Returns:
        Shares in [0, 1], [B, C]: float64 for float64 input, else float32.

    Source: PIAA (arXiv 2605.25821), the read-out of its patch classifier.
    """
    unit, dtype = _unit(patches)
    shares = torch.softmax(temperature * (unit @ class_embeddings.to(dtype).T), dim=2)
    if mask is not None:
        shares = torch.where(mask[:, :, None], shares, 0.0)
    return shares.amax(dim=1)


def _unit(patches: torch.Tensor) -> tuple[torch.Tensor, torch.dtype]:
    """Patches of unit length, and the type that everything is computed in."""
    dtype = torch.float64 if patches.dtype == torch.float64 else torch.float32
    lengths = torch.linalg.vector_norm(patches.to(dtype), dim=-1, keepdim=True)
    return patches.to(dtype) / lengths.clamp_min(NORM_FLOOR), dtype

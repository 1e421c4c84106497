"""Inference in one pass: similarities, their merge with the global score, and the best patches."""

from __future__ import annotations

from typing import NamedTuple

import torch

from taidpt.kernels.local_similarity import chunked, dispatch
from taidpt.kernels.local_similarity.inputs import Epilogue, Inputs, check_finite, check_input

__all__ = ["Scores", "fused_scores"]


class Scores(NamedTuple):
    """Scores [B, C] float32; the most similar patch of each class, int32, -1 where none counts."""

    scores: torch.Tensor
    best: torch.Tensor | None


@torch.no_grad()
def fused_scores(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    *,
    epilogue: Epilogue | None = None,
    with_best: bool = False,
) -> Scores:
    """Local similarities merged, scaled and shifted; on a GPU in the operator's own launch.

    For inference: nothing is differentiated. The first five arguments are those of
    local_similarity.

    Args:
        patches: patch features, [B, P, D].
        class_embeddings: unit rows, [C, D].
        temperature: softmax sharpness over patches, > 0.
        mask: True where a patch counts, bool, [B, P].
        values: the rows that weighed patches are compared with, [C, D].
        epilogue: the score's arithmetic; none by default.
        with_best: also return the most similar patch of each class.

    Raises:
        ValueError, TypeError: as local_similarity, and where the epilogue does not fit [B, C].
    """
    inputs = Inputs(patches, class_embeddings, temperature, mask, values)
    check_input(inputs)
    check_finite(inputs)
    epilogue = epilogue or Epilogue()
    epilogue.check((patches.shape[0], class_embeddings.shape[0]))
    if dispatch.uses_triton(inputs):
        from taidpt.kernels.local_similarity.triton_launch import launch_forward
        from taidpt.kernels.local_similarity.triton_operands import prepared

        outputs = launch_forward(prepared(inputs), epilogue.packed(), keep_best=with_best)
        return Scores(outputs.result, outputs.best)
    with torch.autocast(patches.device.type, enabled=False):
        similarity = chunked.forward(inputs).result
        best = chunked.best_patches(inputs) if with_best else None
    return Scores(epilogue.apply(similarity), best)

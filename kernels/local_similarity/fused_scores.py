"""Inference in one pass: similarities, their merge with the global score, and the best patches."""

from __future__ import annotations

from typing import NamedTuple

import torch

from taidpt.kernels.local_similarity import chunked
from taidpt.kernels.local_similarity.inputs import check_finite, check_input

__all__ = ["Epilogue", "Scores", "merged_scores"]


class Epilogue(NamedTuple):
    """What is done with a similarity before it is stored; each part only where given.

    `scale · ((1 − w) · global + w · similarity) + bias`
    """

    global_similarity: torch.Tensor | None = None  # [B, C]
    merge_weight: float = 1.0
    scale: torch.Tensor | None = None  # [C] float32, given together with bias
    bias: torch.Tensor | None = None  # [C] float32

    def check(self, shape: tuple[int, int]) -> None:
        """Raise ValueError when a part does not fit [B, C]."""
        if (self.scale is None) != (self.bias is None):
            raise ValueError("scale and bias: give both or neither")
        expected = {"global_similarity": shape, "scale": shape[1:], "bias": shape[1:]}
        for name, size in expected.items():
            part = getattr(self, name)
            if part is not None and tuple(part.shape) != size:
                raise ValueError(f"{name}: expected shape {size}, received {tuple(part.shape)}")

    def packed(self) -> Epilogue:
        """The same with tensors as the kernel reads them."""
        whole, weight, scale, bias = self
        return Epilogue(
            None if whole is None else whole.contiguous(),
            weight,
            None if scale is None else scale.float().contiguous(),
            None if bias is None else bias.float().contiguous(),
        )

    def apply(self, similarity: torch.Tensor) -> torch.Tensor:
        """The same in PyTorch."""
        if self.global_similarity is not None:
            similarity = torch.lerp(self.global_similarity.float(), similarity, self.merge_weight)
        if self.scale is not None and self.bias is not None:
            similarity = self.scale * similarity + self.bias
        return similarity


class Scores(NamedTuple):
    """Scores [B, C] float32; the most similar patch of each class, int32, -1 where none counts."""

    scores: torch.Tensor
    best: torch.Tensor | None


@torch.no_grad()
def merged_scores(
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
        values: what a patch is weighed for, [C, D].
        epilogue: the score's arithmetic; none by default.
        with_best: also name the most similar patch of each class.

    Raises:
        ValueError, TypeError: as local_similarity, and where the epilogue does not fit [B, C].
    """
    from taidpt.kernels.local_similarity.dispatch import runs_in_triton

    check_input(patches, class_embeddings, temperature, mask, values)
    check_finite(patches=patches, class_embeddings=class_embeddings, values=values)
    epilogue = epilogue or Epilogue()
    epilogue.check((patches.shape[0], class_embeddings.shape[0]))
    if patches.is_cuda and runs_in_triton(patches, class_embeddings, values):
        from taidpt.kernels.local_similarity.triton_launch import launch_forward
        from taidpt.kernels.local_similarity.triton_operands import prepared

        operands = prepared(patches, class_embeddings, temperature, mask, values)
        outputs = launch_forward(operands, epilogue.packed(), keep_best=with_best)
        return Scores(outputs.result, outputs.best)
    with torch.autocast(patches.device.type, enabled=False):
        similarity, _ = chunked.forward(patches, class_embeddings, temperature, mask, values)
        best = chunked.best_patches(patches, class_embeddings, mask) if with_best else None
    return Scores(epilogue.apply(similarity), best)

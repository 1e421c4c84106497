"""The score arithmetic that inference applies to a similarity before it is stored."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Epilogue"]


class Epilogue(NamedTuple):
    """`scale · ((1 − w) · global + w · similarity) + bias`; a part that is None is left out."""

    global_similarity: torch.Tensor | None = None  # [B, C]
    merge_weight: float = 1.0  # w
    scale: torch.Tensor | None = None  # [C], given together with bias
    bias: torch.Tensor | None = None  # [C]

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
        """The same with contiguous tensors, scale and bias in float32, as the kernel reads them."""
        whole, weight, scale, bias = self
        return Epilogue(
            None if whole is None else whole.contiguous(),
            weight,
            None if scale is None else scale.float().contiguous(),
            None if bias is None else bias.float().contiguous(),
        )

    def apply(self, similarity: torch.Tensor) -> torch.Tensor:
        """The same arithmetic in PyTorch, [B, C] to [B, C]."""
        if self.global_similarity is not None:
            similarity = torch.lerp(self.global_similarity.float(), similarity, self.merge_weight)
        if self.scale is not None and self.bias is not None:
            similarity = self.scale * similarity + self.bias
        return similarity

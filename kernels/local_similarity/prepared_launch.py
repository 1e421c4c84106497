"""A call prepared ahead: the same launches on the same buffers, with no decision left to make.

An ordinary call checks its inputs, chooses tiles and goes through Triton's look-up of a compiled
kernel, which takes longer than a small problem takes on a GPU. Where shapes stay the same all that
is done once.
"""

from __future__ import annotations

import torch

from taidpt.kernels.local_similarity.inputs import Epilogue, Inputs
from taidpt.kernels.local_similarity.tiles import Tiles
from taidpt.kernels.local_similarity.triton_launch import launch_forward
from taidpt.kernels.local_similarity.triton_operands import prepared, recorded_launches

__all__ = ["PreparedLocalSimilarity"]


class PreparedLocalSimilarity:
    """`local_similarity` of buffers that stay where they are.

    New patches are copied into the buffer, or computed there, before a call; a CUDA graph may
    capture calls. Values are not looked at: NaN and infinity give NaN.

    Attributes:
        patches: the buffer [B, P, D] that each call reads.
        result: similarities [B, C] float32 that each call overwrites.
    """

    def __init__(
        self,
        patches: torch.Tensor,
        class_embeddings: torch.Tensor,
        temperature: float,
        mask: torch.Tensor | None = None,
        *,
        epilogue: Epilogue | None = None,
        tiles: Tiles | None = None,
    ) -> None:
        """Compile what is needed, and run it once.

        Args:
            patches: [B, P, D], of unit inner stride, fp32, fp16 or bf16, on an NVIDIA GPU.
            class_embeddings: the bank [C, D], on the same GPU.
            temperature: factor of the similarities before the softmax over patches.
            mask: bool [B, P], True where a patch counts.
            epilogue: score arithmetic; none by default.
            tiles: instead of the table's choice.
        Raises:
            ValueError: no GPU, or an inner stride that calls would read a copy of.
        """
        if not patches.is_cuda:
            raise ValueError(
                f"PreparedLocalSimilarity: patches are on {patches.device}; launches "
                "prepared ahead need an NVIDIA GPU, elsewhere call local_similarity"
            )
        if patches.stride(-1) != 1:
            raise ValueError(
                f"PreparedLocalSimilarity: patches of inner stride {patches.stride(-1)} would be "
                "copied once and not read again; give a buffer of inner stride 1"
            )
        self.patches = patches
        operands = prepared(Inputs(patches, class_embeddings, temperature, mask))
        with recorded_launches() as launches:
            self.result = launch_forward(operands, epilogue, tiles=tiles).result
        self._launches = tuple(launch.bound() for launch in launches)
        self._device: int = patches.get_device()

    def __call__(self) -> torch.Tensor:
        """Launch on the current stream; `result`, which the GPU may still be writing."""
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        for run, grid, compiled, arguments in self._launches:
            run(*grid, stream, *compiled, *arguments)
        return self.result

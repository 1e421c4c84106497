"""A call prepared ahead: the same launches on the same buffers, with no decision left to make.

An ordinary call checks its inputs, chooses tiles and goes through Triton's look-up of a compiled
kernel, which takes longer than a small problem takes on a GPU. Where shapes stay the same all that
is done once, and what is left is a CUDA graph's replay.
"""

from __future__ import annotations

from typing import Any

import torch

from taidpt.kernels.local_similarity.inputs import Epilogue, Inputs, check_input
from taidpt.kernels.local_similarity.tiles import Tiles
from taidpt.kernels.local_similarity.triton_launch import launch_forward
from taidpt.kernels.local_similarity.triton_operands import prepared, recorded_launches

__all__ = ["PreparedLocalSimilarity"]


class PreparedLocalSimilarity:
    """`local_similarity` of buffers that stay where they are.

    New patches are copied into the buffer, or computed there, before a call. A call inside a
    caller's own CUDA graph is captured with it. NaN and infinity are not looked for; they give NaN.

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
        """Compile what is needed, run it, and capture it; not inside another capture.

        Args:
            patches: [B, P, D], of unit inner stride, fp32, fp16 or bf16, on an NVIDIA GPU.
            class_embeddings: the bank [C, D], on the same GPU.
            temperature: factor of the similarities before the softmax over patches.
            mask: bool [B, P], True where a patch counts.
            epilogue: score arithmetic; none by default.
            tiles: instead of the table's choice.
        Raises:
            ValueError, TypeError: as local_similarity; also no GPU, an inner stride that calls
                would read a copy of, or an epilogue that does not fit [B, C].
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
        inputs = Inputs(patches, class_embeddings, temperature, mask)
        check_input(inputs)
        epilogue = epilogue or Epilogue()
        epilogue.check((patches.shape[0], class_embeddings.shape[0]))
        with recorded_launches() as launches:
            self.result = launch_forward(prepared(inputs), epilogue.packed(), tiles=tiles).result
        # their arguments hold the operands and workspaces, of which a graph knows addresses alone
        self._launches = tuple(launch.bound() for launch in launches)
        self._device: int = patches.get_device()
        self._graph = self._captured() if launches else None

    def __call__(self) -> torch.Tensor:
        """Run on the current stream; `result`, which the GPU may still be writing."""
        if self._graph is None or torch.cuda.is_current_stream_capturing():
            self._launch()
        else:
            self._graph.replay()
        return self.result

    def _launch(self) -> None:
        """The launches one by one, on the current stream."""
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        for run, grid, compiled, arguments in self._launches:
            run(*grid, stream, *compiled, *arguments)

    def _captured(self) -> torch.cuda.CUDAGraph:
        """The launches as a graph, after a first run on a stream other than the default one."""
        with torch.cuda.device(self._device):
            stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._launch()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._launch()
        return graph

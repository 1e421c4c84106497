"""The second read-out as `torch.ops.taidpt.competing_similarity`: for inference, on CPU and CUDA.

Classes compete within each patch, and the best patch of a class counts. On a CPU it runs in blocks
over classes, on CUDA through Triton, and in the same blocks where Triton is missing or the type is
float64. It has no gradient: nothing is tuned through it.
"""

from __future__ import annotations

import torch

from taidpt.kernels.local_similarity import chunked, dispatch
from taidpt.kernels.local_similarity.inputs import Inputs, check_finite, check_input

__all__ = ["competing_similarity"]


def competing_similarity(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
    *,
    finite_checked: bool = False,
) -> torch.Tensor:
    """Largest share of a class in any patch.

    `Y[b, c] = max_p softmax_c(τ · x̂[b, p] · t[c])`; `[B, P, C]` never exists. Unlike
    `local_similarity`, a class's value depends on the other classes.

    Args:
        patches: patch features, [B, P, D], any float type; need not be unit length.
        class_embeddings: unit rows, [C, D].
        temperature: sharpness over classes, > 0.
        mask: True where a patch counts, bool, [B, P]; an image with no patch gives 0.
        finite_checked: as of `local_similarity`.

    Returns:
        Shares in [0, 1], [B, C], float32 (float64 for float64 patches).

    Raises:
        ValueError, TypeError: as `local_similarity`.
        RuntimeError: a gradient is asked for.
    """
    inputs = Inputs(patches, class_embeddings, float(temperature), mask)
    check_input(inputs)
    if not finite_checked and not torch.compiler.is_compiling():
        check_finite(inputs)
    result: torch.Tensor = torch.ops.taidpt.competing_similarity(*inputs[:4])
    return result


@torch.library.custom_op(
    "taidpt::competing_similarity", mutates_args=(), device_types=("cpu", "cuda")
)
def _forward(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    inputs = Inputs(patches, class_embeddings, temperature, mask)
    check_input(inputs)
    if dispatch.uses_triton(inputs):
        from taidpt.kernels.local_similarity.triton_competing import launch_competing
        from taidpt.kernels.local_similarity.triton_operands import prepared

        return launch_competing(prepared(inputs))
    return chunked.competing(inputs)


@_forward.register_fake
def _forward_fake(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    dtype = torch.float64 if patches.dtype == torch.float64 else torch.float32
    return patches.new_empty((patches.shape[0], class_embeddings.shape[0]), dtype=dtype)

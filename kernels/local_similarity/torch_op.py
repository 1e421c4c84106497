"""The operator as `torch.ops.taidpt.local_similarity`: CPU, CUDA, meta, autograd.

Registered through torch.library, so that autograd, torch.compile and the exporter see one node;
an ordinary call takes the shorter way of dispatch.py to the same implementations. On a CPU they run
in blocks over classes; on CUDA through Triton, and in the same blocks where Triton is missing or
the type is float64.
"""

from __future__ import annotations

from typing import Any

import torch

from taidpt.kernels.local_similarity import dispatch
from taidpt.kernels.local_similarity.chunked import Forward
from taidpt.kernels.local_similarity.inputs import Inputs, check_finite, check_input

__all__ = ["local_similarity"]


def local_similarity(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None = None,
    values: torch.Tensor | None = None,
    *,
    finite_checked: bool = False,
) -> torch.Tensor:
    """Spatially weighted patch–class similarity of the local branch.

    `Y[b, c] = Σ_p softmax_p(τ · x̂[b, p] · t[c]) · (x̂[b, p] · v[c])`; `[B, P, C]` never exists.
    Differentiable in patches, class embeddings and values.

    Args:
        patches: patch features, [B, P, D], any float type, any strides; need not be unit length.
        class_embeddings: unit rows, [C, D].
        temperature: softmax sharpness over patches, > 0 (40 for photographs in the paper).
        mask: True where a patch counts, bool, [B, P]; an image with no patch gives 0, gradient 0.
        values: the rows that weighed patches are compared with, [C, D]; the class embeddings by
            default.
        finite_checked: the caller has checked that no value is NaN or infinite. Otherwise the
            values are read, which on a GPU waits for the device; torch.compile never reads them.

    Returns:
        Similarities in [-1, 1], [B, C], float32 (float64 for float64 patches).

    Raises:
        ValueError: ranks, sizes or devices differ, P, C or D is 0, NaN or infinity somewhere.
        TypeError: a tensor's type is not a float type (mask: bool).
    """
    check_input(Inputs(patches, class_embeddings, temperature, mask, values))
    inputs = _cast_as_matmul(Inputs(patches, class_embeddings, float(temperature), mask, values))
    if not finite_checked and not torch.compiler.is_compiling():
        check_finite(inputs)
    patches, class_embeddings, _, _, values = inputs
    wants_gradient = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad
        for tensor in (patches, class_embeddings, values)
    )
    if dispatch.bypasses_dispatcher(patches, class_embeddings, mask, values):
        return dispatch.local_similarity(inputs, wants_gradient)
    result: torch.Tensor = torch.ops.taidpt.local_similarity(*inputs, wants_gradient)[0]
    return result


def _cast_as_matmul(inputs: Inputs) -> Inputs:
    """Under autocast in its type, as torch.matmul takes its factors; float64 stays what it is."""
    patches, class_embeddings, temperature, mask, values = inputs
    kind = patches.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind) or patches.dtype == torch.float64:
        return inputs
    dtype = torch.get_autocast_dtype(kind)
    values = None if values is None else values.to(dtype)
    return Inputs(patches.to(dtype), class_embeddings.to(dtype), temperature, mask, values)


@torch.library.custom_op("taidpt::local_similarity", mutates_args=(), device_types=("cpu", "cuda"))
def _forward(
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
    values: torch.Tensor | None,
    keep_log_sum: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities, and the log denominators [B, C] where they are kept for a backward pass."""
    inputs = Inputs(patches, class_embeddings, temperature, mask, values)
    check_input(inputs)
    result, log_sum, _, _ = dispatch.forward(inputs, keep_log_sum)
    return result, result.new_empty((0,)) if log_sum is None else log_sum


@_forward.register_fake
def _forward_fake(
    patches: torch.Tensor, class_embeddings: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (patches.shape[0], class_embeddings.shape[0])
    dtype = torch.float64 if patches.dtype == torch.float64 else torch.float32
    result = patches.new_empty(shape, dtype=dtype)
    keep_log_sum = others[-1]
    return result, result.new_empty(shape if keep_log_sum else (0,))


@torch.library.custom_op(
    "taidpt::local_similarity_backward", mutates_args=(), device_types=("cpu", "cuda")
)
def _backward(
    grad: torch.Tensor,
    result: torch.Tensor,
    log_sum: torch.Tensor,
    patches: torch.Tensor,
    class_embeddings: torch.Tensor,
    temperature: float,
    mask: torch.Tensor | None,
    values: torch.Tensor | None,
    needs: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of patches, class embeddings, values; empty where `needs` is False."""
    inputs = Inputs(patches, class_embeddings, temperature, mask, values)
    wanted = (needs[0], needs[1], needs[2])
    gradients = dispatch.backward(grad, Forward(result, log_sum), inputs, wanted)
    first, second, third = (
        source.new_empty((0,)) if gradient is None else gradient
        for source, gradient in zip(_differentiable(inputs), gradients, strict=True)
    )
    return first, second, third


@_backward.register_fake
def _backward_fake(
    grad: torch.Tensor, result: torch.Tensor, log_sum: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    *arguments, needs = others
    first, second, third = (
        source.new_empty(source.shape if wanted else (0,))
        for source, wanted in zip(_differentiable(Inputs(*arguments)), needs, strict=True)
    )
    return first, second, third


def _differentiable(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tensors whose gradients the operator returns; no values means the class embeddings."""
    patches, class_embeddings, _, _, values = inputs
    return patches, class_embeddings, class_embeddings if values is None else values


def _setup_context(
    ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]
) -> None:
    patches, class_embeddings, temperature, mask, values, _ = inputs
    ctx.save_for_backward(*output, patches, class_embeddings, mask, values)
    ctx.temperature = temperature
    ctx.mark_non_differentiable(output[1])


def _autograd(ctx: Any, grad: torch.Tensor, _: torch.Tensor | None) -> tuple[Any, ...]:
    result, log_sum, patches, class_embeddings, mask, values = ctx.saved_tensors
    wants = ctx.needs_input_grad
    needs = [wants[0], wants[1], wants[4] and values is not None]
    if log_sum.numel() == 0 and result.numel() != 0:
        raise RuntimeError(
            "taidpt::local_similarity was run without keep_log_sum and cannot be differentiated; "
            "call taidpt.kernels.local_similarity.local_similarity, which asks for it when needed"
        )
    gradients = torch.ops.taidpt.local_similarity_backward(
        grad, result, log_sum, patches, class_embeddings, ctx.temperature, mask, values, needs
    )
    d_patches, d_bank, d_values = (
        gradient if wanted else None for gradient, wanted in zip(gradients, needs, strict=True)
    )
    return d_patches, d_bank, None, None, d_values, None


_forward.register_autograd(_autograd, setup_context=_setup_context)

"""The operator without the dispatcher: the same implementations, a plain autograd function.

An operator of torch.library passes several layers of Python on its way, which a compiler, an
exporter and a tensor's subclass need and an ordinary call does not. With small problems they take
longer than the GPU does, so ordinary calls leave them out.
"""

from __future__ import annotations

from typing import Any

import torch

from taidpt.kernels.local_similarity import dispatch as implementations
from taidpt.kernels.local_similarity.dispatch import Inputs

__all__ = ["is_ordinary", "local_similarity"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DEVICES = ("cpu", "cuda")


def is_ordinary(*tensors: torch.Tensor | None) -> bool:
    """Whether nothing but autograd takes notice of a call with these tensors.

    Not so while something compiles, exports or traces, under a dispatch mode (fake tensors,
    counters of operations) or a transform of torch.func, or with a subclass of a tensor.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    return all(tensor is None or _is_ordinary(tensor) for tensor in tensors)


def _is_ordinary(tensor: torch.Tensor) -> bool:
    if type(tensor) not in _PLAIN or tensor.device.type not in _DEVICES:
        return False
    # views that the dispatcher negates when read, and gradients that is_grads_batched stacks
    return not (tensor.is_neg() or torch._C._functorch.is_legacy_batchedtensor(tensor))


def local_similarity(inputs: Inputs, temperature: float, wants_gradient: bool) -> torch.Tensor:
    """As the operator, for inputs that were checked; differentiable where asked to be."""
    if wants_gradient:
        result: torch.Tensor = _LocalSimilarity.apply(*inputs, temperature)
        return result
    return implementations.forward(inputs, temperature, keep_log_sum=False).result


class _LocalSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        patches: torch.Tensor,
        class_embeddings: torch.Tensor,
        mask: torch.Tensor | None,
        values: torch.Tensor | None,
        temperature: float,
    ) -> torch.Tensor:
        inputs = (patches, class_embeddings, mask, values)
        found = implementations.forward(inputs, temperature, keep_log_sum=True)
        ctx.save_for_backward(*found, *inputs)
        ctx.temperature = temperature
        return found.result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        result, log_sum, inverse, *inputs = ctx.saved_tensors
        patches, class_embeddings, mask, values = inputs
        wants = ctx.needs_input_grad
        needs = (wants[0], wants[1], wants[3])
        # what forward saved was ordinary
        if torch.is_grad_enabled() or not is_ordinary(grad):
            # with create_graph the operator says that there is no second derivative
            gradients = torch.ops.taidpt.local_similarity_backward(
                grad,
                result,
                log_sum,
                patches,
                class_embeddings,
                ctx.temperature,
                mask,
                values,
                list(needs),
            )
        else:
            gradients = implementations.backward(
                grad, (result, log_sum, inverse), tuple(inputs), ctx.temperature, needs
            )
        d_patches, d_bank, d_values = (
            gradient if wanted else None for gradient, wanted in zip(gradients, needs, strict=True)
        )
        return d_patches, d_bank, None, d_values, None

"""Which way a call takes: past PyTorch's dispatcher or through it, in PyTorch or in Triton.

An operator of torch.library passes several layers of Python that a compiler, an exporter or a
tensor subclass needs. With small problems they take longer than the GPU does, so an ordinary call
goes through a plain autograd function instead. Both ways end in `forward` and `backward` below.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from taidpt.kernels.local_similarity import chunked
from taidpt.kernels.local_similarity.chunked import Forward, Gradients
from taidpt.kernels.local_similarity.inputs import Inputs

__all__ = ["backward", "bypasses_dispatcher", "forward", "local_similarity", "uses_triton"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_DEVICES = ("cpu", "cuda")


def bypasses_dispatcher(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd alone has to see a call with these tensors.

    False while something compiles, exports or traces, under a dispatch mode (fake tensors, counters
    of operations) or a transform of torch.func, and for a subclass of a tensor.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    return all(tensor is None or _is_plain(tensor) for tensor in tensors)


def _is_plain(tensor: torch.Tensor) -> bool:
    if type(tensor) not in _PLAIN or tensor.device.type not in _DEVICES:
        return False
    # views that the dispatcher negates when read, and gradients that is_grads_batched stacks
    return not (tensor.is_neg() or torch._C._functorch.is_legacy_batchedtensor(tensor))


def local_similarity(inputs: Inputs, wants_gradient: bool) -> torch.Tensor:
    """Similarities [B, C] of checked inputs past the dispatcher; differentiable where wanted."""
    if wants_gradient:
        result: torch.Tensor = _LocalSimilarity.apply(*inputs)
        return result
    return forward(inputs, keep_log_sum=False).result


class _LocalSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> torch.Tensor:
        inputs = Inputs(*arguments)
        outputs = forward(inputs, keep_log_sum=True)
        patches, class_embeddings, ctx.temperature, mask, values = inputs
        ctx.save_for_backward(*outputs, patches, class_embeddings, mask, values)
        return outputs.result

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *outputs, patches, class_embeddings, mask, values = ctx.saved_tensors
        saved = Forward(*outputs)
        inputs = Inputs(patches, class_embeddings, ctx.temperature, mask, values)
        wants = ctx.needs_input_grad
        needs = (wants[0], wants[1], wants[4])
        # the tensors that forward saved are plain: only the gradient has to be checked
        if torch.is_grad_enabled() or not bypasses_dispatcher(grad):
            # with create_graph the operator reports that there is no second derivative
            gradients = torch.ops.taidpt.local_similarity_backward(
                grad, saved.result, saved.log_sum, *inputs, list(needs)
            )
        else:
            gradients = backward(grad, saved, inputs, needs)
        d_patches, d_bank, d_values = (
            gradient if wanted else None for gradient, wanted in zip(gradients, needs, strict=True)
        )
        return d_patches, d_bank, None, None, d_values


def forward(inputs: Inputs, keep_log_sum: bool) -> Forward:
    """The operator's value for checked inputs; log denominators only where a gradient follows."""
    if uses_triton(inputs):
        operands = _triton("operands").prepared(inputs)
        outputs: Forward = _triton("launch").launch_forward(operands, keep_log_sum=keep_log_sum)
        return outputs
    with _no_autocast(inputs.patches):
        outputs = chunked.forward(inputs)
    return outputs if keep_log_sum else Forward(outputs.result)


def backward(
    grad: torch.Tensor, saved: Forward, inputs: Inputs, needs: tuple[bool, bool, bool]
) -> Gradients:
    """Gradients of patches, class embeddings and values; `saved` is the output of `forward`."""
    with _no_autocast(inputs.patches):
        implementation = _triton("backward") if uses_triton(inputs) else chunked
        gradients: Gradients = implementation.backward(grad, saved, inputs, needs)
        return gradients


@functools.cache
def _triton(name: str) -> Any:
    """A module that imports Triton, loaded when a call first needs it."""
    return importlib.import_module(f"taidpt.kernels.local_similarity.triton_{name}")


def _no_autocast(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off: the operator's own types hold, autocast was applied to its arguments."""
    kind = tensor.device.type
    # entering it costs as much as a small launch, and mostly there is nothing to switch off
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def uses_triton(inputs: Inputs) -> bool:
    """Whether tensors lie on a GPU, Triton is installed, and none of them is float64."""
    if not inputs.patches.is_cuda:
        return False
    tensors = (inputs.patches, inputs.class_embeddings, inputs.values)
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors):
        return False
    return _has_triton()


@functools.cache
def _has_triton() -> bool:
    installed = importlib.util.find_spec("triton") is not None
    if not installed:
        warnings.warn(
            "triton is not installed: local_similarity runs through PyTorch in blocks on this GPU "
            "(pip install triton)",
            RuntimeWarning,
            stacklevel=4,
        )
    return installed

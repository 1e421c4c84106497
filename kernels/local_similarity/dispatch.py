"""Which implementation computes a call: blocks in PyTorch, or Triton on a GPU.

Below autograd and below the dispatcher: torch_op.py's operators and direct.py both end here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from taidpt.kernels.local_similarity import chunked

__all__ = ["Forward", "Inputs", "backward", "forward", "runs_in_triton"]

# Patches, class embeddings, mask, values.
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]


class Forward(NamedTuple):
    """Similarities, and what a backward pass can use of their making.

    Attributes:
        result: similarities, [B, C].
        log_sum: log denominators, [B, C]; None where not kept.
        inverse: 1 / |x|, [B, P], where the launch wrote it to memory.
    """

    result: torch.Tensor
    log_sum: torch.Tensor | None
    inverse: torch.Tensor | None


def forward(inputs: Inputs, temperature: float, keep_log_sum: bool) -> Forward:
    """The operator's value for inputs that were checked."""
    patches, class_embeddings, mask, values = inputs
    if _uses_triton(inputs):
        operands = _triton("operands").prepared(
            patches, class_embeddings, temperature, mask, values
        )
        outputs = _triton("launch").launch_forward(operands, keep_log_sum=keep_log_sum)
        return Forward(outputs.result, outputs.log_sum, outputs.inverse)
    with _no_autocast(patches):
        result, log_sum = chunked.forward(patches, class_embeddings, temperature, mask, values)
    return Forward(result, log_sum if keep_log_sum else None, None)


def backward(
    grad: torch.Tensor,
    saved: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    inputs: Inputs,
    temperature: float,
    needs: tuple[bool, bool, bool],
) -> chunked.Gradients:
    """Gradients of patches, class embeddings and values; `saved` is what forward gave."""
    result, log_sum, inverse = saved
    with _no_autocast(inputs[0]):
        if _uses_triton(inputs):
            found: chunked.Gradients = _triton("backward").backward(
                grad, (result, log_sum), inputs, temperature, needs, inverse
            )
            return found
        return chunked.backward(grad, (result, log_sum), inputs, temperature, needs)


@functools.cache
def _triton(name: str) -> Any:
    """A module that imports Triton, loaded when a call first needs it."""
    return importlib.import_module(f"taidpt.kernels.local_similarity.triton_{name}")


def _no_autocast(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Inside the operator types are what it says they are; autocast chose them at the door."""
    kind = tensor.device.type
    # entering it costs as much as a small launch, and mostly there is nothing to switch off
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _uses_triton(inputs: Inputs) -> bool:
    patches, class_embeddings, _, values = inputs
    return patches.is_cuda and runs_in_triton(patches, class_embeddings, values)


def runs_in_triton(
    patches: torch.Tensor, class_embeddings: torch.Tensor, values: torch.Tensor | None
) -> bool:
    """Whether tensors on a GPU go through Triton: it is there, and none of them is float64."""
    double = torch.float64
    if patches.dtype == double or class_embeddings.dtype == double:
        return False
    return (values is None or values.dtype != double) and _has_triton()


@functools.cache
def _has_triton() -> bool:
    found = importlib.util.find_spec("triton") is not None
    if not found:
        warnings.warn(
            "triton is not installed: local_similarity runs through PyTorch in blocks on this GPU "
            "(pip install triton)",
            RuntimeWarning,
            stacklevel=4,
        )
    return found

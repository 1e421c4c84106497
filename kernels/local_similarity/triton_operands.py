"""What all Triton launches share: operands, the types of products, lengths of patches.

Under TRITON_INTERPRET=1 launches run on CPU tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from taidpt.kernels.local_similarity.inputs import Inputs
from taidpt.kernels.local_similarity.triton_gradient import inverse_length_kernel

__all__ = [
    "architecture_of",
    "element_type",
    "inverse_lengths",
    "is_interpreted",
    "kernel_type",
    "launch",
    "on_device_of",
    "precision",
    "prepared",
    "recorded_launches",
]

_DTYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
}
# The first compute capability whose tensor cores multiply bf16 and TF32.
_AMPERE = 80


@dataclass(frozen=True)
class Launch:
    """A launch that was made, with what it takes to make it again."""

    kernel: Any
    compiled: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]

    def bound(self) -> tuple[Any, tuple[int, ...], tuple[Any, ...], tuple[Any, ...]]:
        """The compiled kernel's launcher, three sizes of the grid, its handles, its arguments."""
        grid = (*self.grid, 1, 1)[:3]
        names = self.kernel.arg_names[len(self.arguments) :]
        arguments = (*self.arguments, *(self.constants[name] for name in names))
        # no metadata, and no hooks of a profiler
        handles = (self.compiled.function, self.compiled.packed_metadata, None, None, None)
        return self.compiled.run, grid, handles, arguments


_RECORDED: ContextVar[list[Launch] | None] = ContextVar("_RECORDED", default=None)


@contextmanager
def recorded_launches() -> Iterator[list[Launch]]:
    """Launches made inside; none in the interpreter, which compiles nothing."""
    launches: list[Launch] = []
    token = _RECORDED.set(launches)
    try:
        yield launches
    finally:
        _RECORDED.reset(token)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a kernel, whose arguments come first and its constants by name."""
    compiled = kernel[grid](*arguments, **constants)
    launches = _RECORDED.get()
    if launches is not None and compiled is not None:
        launches.append(Launch(kernel, compiled, grid, arguments, constants))


def prepared(inputs: Inputs) -> Inputs:
    """The inputs as a launch reads them: unit inner strides, the mask as bytes."""
    patches, class_embeddings, temperature, mask, values = inputs
    return Inputs(
        _rows(patches),
        _rows(class_embeddings),
        temperature,
        None if mask is None else mask.contiguous().view(torch.uint8),
        None if values is None else _rows(values),
    )


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Launches inside go to the tensor's GPU."""
    if not tensor.is_cuda or tensor.get_device() == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)


def element_type(patches: torch.Tensor, *others: torch.Tensor | None) -> torch.dtype:
    """The type of the products' factors: the widest given; fp16 with bf16 needs fp32.

    So does bf16 alone before compute capability 8.0, whose tensor cores lack it.
    """
    dtype = patches.dtype
    for other in others:
        if other is not None and other.dtype != dtype:
            return torch.float32
    if dtype == torch.float16 or (dtype == torch.bfloat16 and architecture_of(patches) >= _AMPERE):
        return dtype
    return torch.float32


def kernel_type(dtype: torch.dtype) -> Any:
    """Triton's name of a product's type; factors are brought to it as they are loaded."""
    # the interpreter multiplies bfloat16 bits as if they were integers (Triton issue 11584)
    return tl.float32 if is_interpreted() else _DTYPES[dtype]


def is_interpreted() -> bool:
    """Whether the kernels run in Triton's interpreter."""
    return not isinstance(inverse_length_kernel, triton.JITFunction)


def precision(dtype: torch.dtype, architecture: int) -> str:
    """Triton's precision of a product: full fp32 unless PyTorch allows TF32."""
    if dtype != torch.float32 or architecture < _AMPERE:
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"


def architecture_of(tensor: torch.Tensor) -> int:
    """80 for compute capability 8.0.

    Raises:
        RuntimeError: older than 7.0.
    """
    if not tensor.is_cuda:
        return 80  # the interpreter: any table row will do
    major, minor = _capability(tensor.device)
    if major < 7:
        raise RuntimeError(
            f"local_similarity: compute capability {major}.{minor} is unsupported, 7.0 or newer "
            f"is needed for patches of shape {tuple(tensor.shape)}"
        )
    return 10 * major + minor


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def inverse_lengths(patches: torch.Tensor) -> torch.Tensor:
    """1 / max(|x|, floor) of each patch, [B, P] float32."""
    B, P, D = patches.shape
    result = patches.new_empty((B, P), dtype=torch.float32)
    block = min(1024, triton.next_power_of_2(D))
    strides = patches.stride(0), patches.stride(1)
    launch(
        inverse_length_kernel,
        (B * P,),
        *(patches, result, *strides, P, D),
        BLOCK_D=block,
        num_warps=4,
    )
    return result

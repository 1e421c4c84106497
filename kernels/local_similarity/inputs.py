"""What the operator and the scores take, checked before anything is launched."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

__all__ = ["Epilogue", "Inputs", "check_finite", "check_input"]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Inputs(NamedTuple):
    """Arguments of the operator, in its order; see `naive.local_similarity`."""

    patches: torch.Tensor  # [B, P, D]
    class_embeddings: torch.Tensor  # [C, D]
    temperature: float
    mask: torch.Tensor | None = None  # [B, P]
    values: torch.Tensor | None = None  # [C, D]


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


def _shape(tensor: torch.Tensor) -> str:
    return str(tuple(tensor.shape))


def check_input(inputs: Inputs) -> None:
    """Raise when shapes, types or devices do not fit one another; reads no value but τ.

    Raises:
        ValueError: wrong rank, mismatched sizes, nothing to compare, τ not positive and finite,
            tensors on different devices.
        TypeError: a tensor of the wrong type, or τ not a number.
    """
    patches, class_embeddings, _, mask, values = inputs
    temperature: object = inputs.temperature
    if isinstance(temperature, torch.Tensor):
        raise TypeError(
            f"temperature: expected a number, received a tensor of shape {_shape(temperature)}; "
            "pass float(temperature)"
        )
    if not isinstance(temperature, (int, float)):
        raise TypeError(f"temperature: expected a number, received {type(temperature).__name__}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: expected a finite number above 0, received {temperature}")
    _check_float("patches", patches)
    _check_float("class_embeddings", class_embeddings)
    if patches.ndim != 3:
        raise ValueError(f"patches: expected [B, P, D], received shape {_shape(patches)}")
    if class_embeddings.ndim != 2:
        raise ValueError(
            f"class_embeddings: expected [C, D], received shape {_shape(class_embeddings)}"
        )
    _check_sizes(patches, class_embeddings)
    if mask is not None:
        _check_mask(mask, patches)
    if values is not None:
        _check_values(values, class_embeddings)
    for name in ("class_embeddings", "mask", "values"):
        tensor = getattr(inputs, name)
        if tensor is not None and tensor.device != patches.device:
            raise ValueError(
                f"{name} {_shape(tensor)} lies on {tensor.device}, patches {_shape(patches)} on "
                f"{patches.device}; move them to one device"
            )


def _check_float(name: str, tensor: torch.Tensor) -> None:
    if tensor.dtype not in _FLOATS:
        raise TypeError(
            f"{name}: expected float16, bfloat16, float32 or float64, received {tensor.dtype} of "
            f"shape {_shape(tensor)}"
        )


def _check_sizes(patches: torch.Tensor, class_embeddings: torch.Tensor) -> None:
    if patches.shape[2] != class_embeddings.shape[1]:
        raise ValueError(
            f"D differs: patches {_shape(patches)} have D = {patches.shape[2]}, class_embeddings "
            f"{_shape(class_embeddings)} have D = {class_embeddings.shape[1]}"
        )
    if patches.shape[1] == 0:
        raise ValueError(f"patches {_shape(patches)}: P is 0, there is no patch to weigh")
    if patches.shape[2] == 0:
        raise ValueError(f"patches {_shape(patches)}: D is 0, there is no feature to compare")
    if class_embeddings.shape[0] == 0:
        raise ValueError(f"class_embeddings {_shape(class_embeddings)}: C is 0, there is no class")


def _check_mask(mask: torch.Tensor, patches: torch.Tensor) -> None:
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool, received {mask.dtype} of shape {_shape(mask)}")
    if mask.shape != patches.shape[:2]:
        raise ValueError(
            f"mask: expected [B, P] = {tuple(patches.shape[:2])} after patches {_shape(patches)}, "
            f"received shape {_shape(mask)}"
        )


def _check_values(values: torch.Tensor, class_embeddings: torch.Tensor) -> None:
    _check_float("values", values)
    if values.shape != class_embeddings.shape:
        raise ValueError(
            f"values: expected [C, D] = {_shape(class_embeddings)} like class_embeddings, received "
            f"shape {_shape(values)}"
        )


def check_finite(inputs: Inputs) -> None:
    """Raise when a tensor holds NaN or infinity. On a GPU this waits for the device.

    Raises:
        ValueError: names the tensor, its shape and how many of its elements are not finite.
    """
    for name in ("patches", "class_embeddings", "values"):
        tensor = getattr(inputs, name)
        if tensor is None or tensor.device.type == "meta":
            continue
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        # one pass without a temporary: a sum is finite only if its terms are
        if math.isfinite(tensor.detach().sum(dtype=dtype).item()):
            continue
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise ValueError(
                f"{name} {_shape(tensor)}: {wrong} elements are NaN or infinite; "
                "check what made them (half-precision overflow is the usual cause)"
            )

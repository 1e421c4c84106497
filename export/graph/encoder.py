"""The image encoder alone as an ONNX graph: uint8 frames in, raw features out.

The graph is exported and cleaned before anything else is added to it. No tool may run after the
head's custom node is in: tools inline it, or damage its function.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from taidpt.export.graph.large_weights import hide_matrices, put_back, save_program
from taidpt.export.graph.onnx_files import (
    RAW_GLOBAL,
    RAW_PATCHES,
    describe_opset,
    finish_graph,
    lower_opset,
    quiet_tools,
    run_graph,
)
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.errors import BackendError, ParityError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DEFAULT_OPSET",
    "FrameEncoder",
    "clean_encoder",
    "write_encoder",
]

INPUT_NAME = "frames"
DEFAULT_OPSET = 18
_LEAST_EXPORTED = 18  # the oldest that PyTorch writes; its own conversion to 17 fails on ResNets
_CLEAN_TOLERANCE = 1e-4  # of the largest feature: the rounding of sums in another order


class FrameEncoder(nn.Module):
    """An image encoder with the normalisation in front: one multiplication and one addition.

    Args:
        encoder: takes normalised pictures [B, 3, H, W], gives (global [B, D], patches [B, P, D]).
        spec: the colours' mean and standard deviation.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, encoder: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.encoder = encoder
        mean = torch.tensor(spec.mean, dtype=torch.float64).view(1, 3, 1, 1)
        std = torch.tensor(spec.std, dtype=torch.float64).view(1, 3, 1, 1)
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("shift", (-mean / std).float())

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Raw features of uint8 frames [B, H, W, 3]: global [B, D] and patches [B, P, D]."""
        # cast first: TensorRT cannot transpose bytes
        pixels = frames.to(torch.float32).permute(0, 3, 1, 2)
        global_feature, patch_features = self.encoder(pixels * self.scale + self.shift)
        return global_feature, patch_features


def write_encoder(encoder: nn.Module, spec: InputSpec, opset: int, folder: Path) -> Path:
    """Export an image encoder without the clean-up of `clean_encoder`.

    Large weights go from PyTorch straight into a data file beside the graph, one at a time.

    Args:
        encoder: as for `FrameEncoder`, in eval mode.
        spec: the input's size and colours.
        opset: 17 to 20; LayerNormalization is one node in all of them.
        folder: for the two files.
    Returns:
        The file of a graph from `frames` uint8 [N, H, W, 3] to `raw_global_feature` [N, D] and
        `raw_patch_features` [N, P, D], float32, N dynamic.
    Raises:
        InputError: the opset is not supported.
        BackendError: PyTorch cannot export this encoder.
    """
    describe_opset(opset)
    path = folder / "encoder.onnx"
    module = FrameEncoder(encoder, spec).eval()
    _export(module, spec, opset, path)
    import onnx

    model = onnx.load(path, load_external_data=False)
    path.write_bytes(
        finish_graph(lower_opset(model) if opset < _LEAST_EXPORTED else model).SerializeToString(
            deterministic=True
        )
    )
    return path


def clean_encoder(path: Path, spec: InputSpec) -> onnx.ModelProto:
    """Clean what `write_encoder` wrote, in place; the weights stay in their file.

    Returns:
        The graph, with its large weights in the data file.
    Raises:
        ParityError: the clean-up changed what the graph computes.
    """
    import onnx

    frames = _noise(spec)
    before = run_graph(path, frames, lean=True)
    stub = onnx.load(path, load_external_data=False)
    cleaned = finish_graph(_prefix_names(_clean(stub, path.parent)))
    path.write_bytes(cleaned.SerializeToString(deterministic=True))
    _require_equal(before, run_graph(path, frames, lean=True))
    return cleaned


def _export(module: nn.Module, spec: InputSpec, opset: int, path: Path) -> None:
    example = torch.zeros(2, spec.height, spec.width, 3, dtype=torch.uint8)
    try:
        with quiet_tools(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=max(opset, _LEAST_EXPORTED),
                input_names=[INPUT_NAME],
                output_names=[RAW_GLOBAL, RAW_PATCHES],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
                optimize=False,
            )
            if program is None:
                raise BackendError("PyTorch's ONNX exporter returned nothing")
            save_program(program, path)
    except (BackendError, OSError):
        raise
    except Exception as error:  # of many kinds, each with pages of advice
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendError(f"PyTorch cannot export this image encoder to ONNX: {first}") from error


def _clean(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """Run onnxslim on the graph without its large matrices, which it would copy many times."""
    import onnxslim
    from onnx.external_data_helper import load_external_data_for_model

    hidden = hide_matrices(model)
    load_external_data_for_model(model, str(folder))
    with quiet_tools():
        cleaned: onnx.ModelProto = onnxslim.slim(model)
    put_back(cleaned, hidden)
    return cleaned


def _prefix_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """Prefix all names but those of inputs and outputs with `encoder/`, apart from the head's."""
    graph = model.graph
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}

    def prefixed(names: Iterable[str]) -> list[str]:
        return [name if name in kept else f"encoder/{name}" for name in names]

    for node in graph.node:
        node.name = f"encoder/{node.name}"
        node.input[:] = prefixed(node.input)
        node.output[:] = prefixed(node.output)
    for item in (*graph.initializer, *graph.value_info):
        (item.name,) = prefixed([item.name])
    return model


def _noise(spec: InputSpec) -> dict[str, npt.NDArray[np.uint8]]:
    """Random frames, in a batch of another size than the export's example."""
    generator = np.random.default_rng(0)
    return {INPUT_NAME: generator.integers(0, 256, (3, spec.height, spec.width, 3), dtype=np.uint8)}


def _require_equal(before: dict[str, npt.NDArray[Any]], after: dict[str, npt.NDArray[Any]]) -> None:
    for name, values in before.items():
        difference = float(np.abs(after[name] - values).max() / np.abs(values).max())
        if not difference <= _CLEAN_TOLERANCE:
            raise ParityError(
                f"cleaning the graph changed {name} by {difference:.1e} of its largest value, "
                f"expected at most {_CLEAN_TOLERANCE:.0e}; please report the model"
            )

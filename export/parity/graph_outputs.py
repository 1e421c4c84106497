"""What a device computes, for comparison with the reference. Nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.graph.onnx_files import open_session
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.input_spec import RGB, InputSpec
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.top_k import expand_top

if TYPE_CHECKING:
    import onnx

__all__ = ["BATCH", "Arrays", "Pixels", "crop_spec", "graph_outputs"]

Arrays = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.uint8]
BATCH = 5  # twelve pictures are no multiple of it, so a graph with a fixed batch size fails


def crop_spec(spec: InputSpec) -> InputSpec:
    """The input of the encoder itself, behind a resize that is part of the graph."""
    if spec.baked_resize is None:
        return spec
    height, width = spec.baked_resize.crop
    return dataclasses.replace(spec, height=height, width=width, format=RGB, baked_resize=None)


def graph_outputs(
    graph: onnx.ModelProto | str | Path,
    spec: InputSpec,
    pictures: Sequence[Pixels],
    bank: ClassBank | None = None,
    literal: bool = False,
) -> Arrays:
    """What a device computes: the runtime's preprocessing, then the graph in ONNX Runtime.

    Args:
        graph: the whole graph with its head.
        spec: of the manifest.
        pictures: uint8 RGB [H, W, 3] of any size; frames of its size for a graph with a resize.
        bank: for a graph whose bank is an input.
        literal: without ONNX Runtime's fusions; see `open_session`.
    Returns:
        Outputs by name. "scores" is filled in for a graph with top-k, see `expand_top`.
    """
    preprocess = Preprocessor(spec)
    session = open_session(graph, literal=literal)
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()} - {spec.name}
    fixed = {name: getattr(bank, name) for name in wanted}
    parts = []
    for start in range(0, len(pictures), BATCH):
        frames = preprocess.batch(list(pictures[start : start + BATCH]))
        parts.append(session.run(names, {spec.name: frames, **fixed}))
    outputs = {
        name: np.concatenate([part[index] for part in parts]) for index, name in enumerate(names)
    }
    if "scores" not in outputs and bank is not None:
        outputs["scores"], _ = expand_top(outputs, len(bank.names))
    return outputs

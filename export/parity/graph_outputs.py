"""What a device computes, for comparison with the reference. Nothing here needs PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from taidpt.export.graph.onnx_files import open_session
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.input_spec import RGB, InputSpec
from taidpt.runtime.errors import ParityError, TaidptError, one_line
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.top_k import expand_top

if TYPE_CHECKING:
    import onnx

__all__ = [
    "BATCH",
    "Arrays",
    "Pixels",
    "crop_spec",
    "encoder_pixels",
    "graph_outputs",
    "outputs_of",
]

Arrays = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.uint8]
BATCH = 5  # twelve pictures are no multiple of it, so a graph with a fixed batch size fails


def crop_spec(spec: InputSpec) -> InputSpec:
    """The input of the encoder itself, behind a resize that is part of the graph."""
    if spec.baked_resize is None:
        return spec
    height, width = spec.baked_resize.crop
    return dataclasses.replace(spec, height=height, width=width, format=RGB, baked_resize=None)


def encoder_pixels(spec: InputSpec, pictures: Sequence[Pixels]) -> Pixels:
    """What the encoder gets on a device: uint8 RGB [N, crop height, crop width, 3].

    Args:
        spec: of the manifest.
        pictures: as for `graph_outputs`.
    """
    if spec.baked_resize is None:
        return Preprocessor(spec).batch(list(pictures))
    from taidpt.export.graph.resize import resize_graph

    session = open_session(resize_graph(spec))
    parts = [session.run(None, {spec.name: picture[None]})[0] for picture in pictures]
    pixels: Pixels = np.rint(np.concatenate(parts)).astype(np.uint8)
    return pixels


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
    Raises:
        ParityError: ONNX Runtime cannot run the graph, or gives something else.
    """
    try:
        session = open_session(graph, literal=literal)
        names = [output.name for output in session.get_outputs()]
        wanted = {value.name for value in session.get_inputs()} - {spec.name}
        fixed = {name: getattr(bank, name) for name in wanted}

        def run(frames: Pixels) -> Mapping[str, npt.NDArray[Any]]:
            return dict(zip(names, session.run(names, {spec.name: frames, **fixed}), strict=True))

        return outputs_of(run, spec, pictures, 0 if bank is None else len(bank.names))
    except TaidptError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no common class
        name = graph if isinstance(graph, (str, Path)) else "the new graph"
        reason = one_line(error)[:300]
        raise ParityError(f"{name}: ONNX Runtime cannot run it: {reason}") from error


def outputs_of(
    run: Callable[[Pixels], Mapping[str, npt.NDArray[Any]]],
    spec: InputSpec,
    pictures: Sequence[Pixels],
    tags: int,
) -> Arrays:
    """All outputs for pictures, run in batches.

    Args:
        run: takes frames as the graph does, and gives its outputs by name.
        spec: of the manifest.
        pictures: as for `graph_outputs`.
        tags: C, for the "scores" of a graph with top-k, see `expand_top`.
    """
    preprocess = Preprocessor(spec)
    starts = range(0, len(pictures), BATCH)
    parts = [run(preprocess.batch(list(pictures[start : start + BATCH]))) for start in starts]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "scores" not in outputs and tags:
        outputs["scores"], _ = expand_top(outputs, tags)
    return outputs

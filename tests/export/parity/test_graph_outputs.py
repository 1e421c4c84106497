"""Graphs of a stranger's bundle that ONNX Runtime cannot run, and damaged weights: one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from taidpt.export.graph.from_bundle import load_graph
from taidpt.export.parity.graph_outputs import graph_outputs
from taidpt.runtime.errors import BundleError, ParityError
from tests.runtime.tiny import TinySpec, tiny_graph, tiny_manifest

PICTURES = [np.zeros((16, 16, 3), np.uint8)] * 7


def weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def reshape(model: onnx.ModelProto) -> None:
    weight(model, "patch_shape").CopyFrom(
        numpy_helper.from_array(np.array([0, 7, 5]), "patch_shape")
    )


def rename(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = "nowhere"


def without_scores(model: onnx.ModelProto) -> None:
    for output in model.graph.output:
        if output.name == "top_indices":
            model.graph.output.remove(output)
            return


@pytest.mark.parametrize("damage", [reshape, rename, without_scores])
def test_a_graph_that_cannot_run_is_one_line(
    damage: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    spec = TinySpec(top_k=2)
    bank = spec.bank()
    model = tiny_graph(spec, bank)
    damage(model)
    with pytest.raises(ParityError, match="ONNX Runtime cannot run it") as caught:
        graph_outputs(model, tiny_manifest(spec, bank).input, PICTURES, bank)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dims", [[], [3], [10**9, 10**9], [-1]])
def test_a_weight_whose_bytes_do_not_fill_its_shape_is_refused(
    dims: list[int], tmp_path: Path
) -> None:
    """ONNX's own check compares neither."""
    spec = TinySpec()
    model = tiny_graph(spec, spec.bank())
    tensor = weight(model, "kernel")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="not a readable graph") as caught:
        load_graph(path)
    assert "\n" not in str(caught.value)

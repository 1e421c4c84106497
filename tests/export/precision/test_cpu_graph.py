"""Rewriting for int8 kernels: the values stay, what is slow in eight bits goes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from taidpt.export.graph.onnx_files import open_session
from taidpt.export.precision.cpu_graph import is_pool, is_slow_in_int8, rewrite_for_cpu
from tests.export.conftest import small_graph

SIZE = (2, 6, 9, 12)


def one_pool(**attributes: Any) -> onnx.ModelProto:
    """Per-channel shift, average pool, negation."""
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["shifted"], name="shift"),
        helper.make_node("AveragePool", ["shifted"], ["pooled"], name="pool", **attributes),
        helper.make_node("Neg", ["pooled"], ["y"], name="neg"),
    ]
    shift = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1), "shift")
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SIZE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [shift],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def ops_of(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def outputs(model: onnx.ModelProto, value: np.ndarray) -> list[np.ndarray]:
    session = open_session(model)
    return session.run(None, {session.get_inputs()[0].name: value})


@pytest.mark.parametrize(
    ("attributes", "ops"),
    [
        ({"kernel_shape": [2, 2], "strides": [2, 2]}, {"Add": 1, "Conv": 1, "Neg": 1}),
        ({"kernel_shape": [3, 4], "strides": [1, 2]}, {"Add": 1, "Conv": 1, "Neg": 1}),
        ({"kernel_shape": [3, 3]}, {"Add": 1, "Conv": 1, "Neg": 1}),
        ({"kernel_shape": [1, 1]}, {"Add": 1, "Neg": 1}),
        ({"kernel_shape": [1, 1], "strides": [3, 1]}, {"Add": 1, "Conv": 1, "Neg": 1}),
        # a window that hangs over the edge is another mean
        ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, {"Add": 1, "AveragePool": 1, "Neg": 1}),
        (
            {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
            {"Add": 1, "AveragePool": 1, "Neg": 1},
        ),
        (
            {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"},
            {"Add": 1, "AveragePool": 1, "Neg": 1},
        ),
    ],
)
def test_pools_become_convolutions_of_the_same_values(
    attributes: dict[str, Any], ops: dict[str, int]
) -> None:
    model = one_pool(**attributes)
    value = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    (expected,) = outputs(model, value)
    rewrite_for_cpu(model)
    onnx.checker.check_model(model, full_check=True)
    assert ops_of(model) == ops
    assert [is_pool(n) for n in model.graph.node if n.op_type == "Conv"] == [True] * ops.get(
        "Conv", 0
    )
    np.testing.assert_allclose(outputs(model, value)[0], expected, atol=2e-6)


def test_constants_a_channel_are_as_wide_as_the_frame() -> None:
    model = one_pool(kernel_shape=[1, 1])
    rewrite_for_cpu(model)
    assert [list(tensor.dims) for tensor in model.graph.initializer] == [[1, 6, 1, 12]]


def test_values_of_unknown_sizes_are_left_alone() -> None:
    model = one_pool(kernel_shape=[2, 2])
    model.graph.node.append(helper.make_node("Add", ["one", "one"], ["two"], name="scalars"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    del model.graph.value_info[:]
    before = model.SerializeToString(deterministic=True)
    rewrite_for_cpu(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_whole_encoder_gives_the_same_features(family: str) -> None:
    model = onnx.shape_inference.infer_shapes(small_graph(family))
    frames = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected = outputs(model, frames)
    rewrite_for_cpu(model)
    assert "AveragePool" not in ops_of(model)
    for value, right in zip(outputs(model, frames), expected, strict=True):
        np.testing.assert_allclose(value, right, atol=1e-4 * np.abs(right).max())


@pytest.mark.parametrize(
    ("group", "shape", "slow"),
    [
        (1, (64, 3, 3, 3), False),
        (64, (64, 1, 7, 7), False),
        (64, (128, 1, 7, 7), True),
        (4, (64, 8, 3, 3), True),
    ],
)
def test_groups_of_several_outputs_are_slow(group: int, shape: tuple[int, ...], slow: bool) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group)
    assert is_slow_in_int8(node, shape) is slow

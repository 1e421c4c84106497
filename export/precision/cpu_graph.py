"""An encoder rewritten for ONNX Runtime's int8 kernels on the CPU: the same values, other nodes.

Per-layer profiles (docs/performance.md, "int8 on a CPU") showed where ONNX Runtime is slow:
its average pool of eight bits takes ten times as long as that of fp32, and a factor for each colour
is slow once colours are the innermost axis, which int8 convolutions make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

__all__ = ["is_pool", "is_slow_in_int8", "pools_before", "rewrite_for_cpu"]

_POOL_WEIGHT = "_mean_of_window"


def rewrite_for_cpu(encoder: onnx.ModelProto) -> None:
    """Rewrite average pools and per-channel constants in place; the shapes must be inferred."""
    graph = encoder.graph
    shapes = _shapes(graph)
    for node in list(graph.node):
        if node.op_type == "AveragePool":
            _replace_pool(graph, node, shapes)
        elif node.op_type in ("Mul", "Add"):
            _widen_constant(graph, node, shapes)
    used = {name for node in graph.node for name in node.input}
    for tensor in list(graph.initializer):
        if tensor.name not in used:
            graph.initializer.remove(tensor)


def is_pool(node: onnx.NodeProto) -> bool:
    """Whether a convolution is what `rewrite_for_cpu` made of an average pool."""
    return any(name.endswith(_POOL_WEIGHT) for name in node.input)


def is_slow_in_int8(node: onnx.NodeProto, weight: tuple[int, ...]) -> bool:
    """Whether a convolution is slower in int8 than in fp32: groups with several outputs each.

    MobileCLIP2-S0 has four of them: 31 ms in int8 in place of 1 ms for the largest.
    """
    groups = int(_attributes(node).get("group", 1)) if node.op_type == "Conv" else 1
    return 1 < groups < weight[0]


def pools_before(graph: onnx.GraphProto, kept: Sequence[str]) -> list[str]:
    """Names of the pools whose values go to products that stay in fp32: they stay, too."""
    taken = {name for node in graph.node if node.name in kept for name in node.input}
    return [node.name for node in graph.node if is_pool(node) and taken & set(node.output)]


def _replace_pool(
    graph: onnx.GraphProto, pool: onnx.NodeProto, shapes: dict[str, list[int]]
) -> None:
    """Turn a mean over whole windows into a depthwise convolution; leave out a window of one."""
    from onnx import helper, numpy_helper

    known = _attributes(pool)
    window, strides = known["kernel_shape"], known.get("strides", [1] * len(known["kernel_shape"]))
    channels = _size(shapes, pool.input[0], 1)
    padded = known.get("auto_pad", b"NOTSET") != b"NOTSET" or any(known.get("pads", ()))
    spread = any(step > 1 for step in known.get("dilations", ()))
    if not channels or padded or spread or known.get("ceil_mode"):
        return
    if set(window) == set(strides) == {1}:
        for node in graph.node:
            for place, name in enumerate(node.input):
                if name == pool.output[0]:
                    node.input[place] = pool.input[0]
        graph.node.remove(pool)
        return
    share = np.full((channels, 1, *window), 1 / np.prod(window), np.float32)
    weight = numpy_helper.from_array(share, pool.name + _POOL_WEIGHT)
    graph.initializer.append(weight)
    convolution = helper.make_node(
        "Conv",
        [pool.input[0], weight.name],
        list(pool.output),
        name=pool.name,
        kernel_shape=window,
        strides=strides,
        group=channels,
    )
    pool.CopyFrom(convolution)


def _widen_constant(
    graph: onnx.GraphProto, node: onnx.NodeProto, shapes: dict[str, list[int]]
) -> None:
    """Repeat a constant [1, C, 1, 1] along the width of what it is combined with."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    width = _size(shapes, node.output[0], 3)
    for place, name in enumerate(node.input):
        dims = list(constants[name].dims) if name in constants else []
        if len(dims) == 4 and dims[1] > 1 and dims[:1] + dims[2:] == [1, 1, 1] and width > 1:
            wide = np.repeat(numpy_helper.to_array(constants[name]), width, axis=3)
            graph.initializer.append(numpy_helper.from_array(wide, f"{node.name}_{name}"))
            node.input[place] = f"{node.name}_{name}"


def _shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Sizes by name of value; 0 where one is not known."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def _size(shapes: dict[str, list[int]], name: str, axis: int) -> int:
    """Size of a value along an axis; 0 where it is not known."""
    sizes = shapes.get(name, [])
    return sizes[axis] if axis < len(sizes) else 0


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx import helper

    return {item.name: helper.get_attribute_value(item) for item in node.attribute}

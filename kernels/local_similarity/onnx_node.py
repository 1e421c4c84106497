"""The operator in ONNX: a custom-domain node and the model-local function that spells it out.

ONNX Runtime inlines the function; TensorRT takes the plugin of the same name where one is
registered, which `plugin_namespace` on the node asks for (needed from TensorRT 10.15 on).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from onnx import FunctionProto, ModelProto, NodeProto

__all__ = [
    "DOMAIN",
    "OPSETS",
    "OP_TYPE",
    "PLUGIN_NAMESPACE",
    "PLUGIN_VERSION",
    "attach_function",
    "local_similarity_function",
    "local_similarity_node",
]

DOMAIN = "taidpt"
OP_TYPE = "LocalSimilarity"
PLUGIN_NAMESPACE = "taidpt"
PLUGIN_VERSION = "1"
# LayerNormalization is one node from 17 on; 20 is the newest that onnxruntime 1.18 runs.
OPSETS = range(17, 21)
_INPUTS = ("X", "T", "V", "mask")


def local_similarity_node(
    patches: str,
    class_embeddings: str,
    output: str,
    temperature: float,
    *,
    values: str = "",
    mask: str = "",
    name: str = "local_similarity",
) -> NodeProto:
    """The node: inputs X [B, P, D], T [C, D], optional V [C, D], optional mask [B, P] bool.

    Args:
        patches: name of the patch features, of any length; fp32, fp16 or bf16.
        class_embeddings: name of the unit rows.
        output: name for the similarities, [B, C], float32.
        temperature: softmax sharpness over patches, > 0.
        values: name of what a patch is weighed for; "" for the class embeddings themselves.
        mask: name of the mask, True where a patch counts; "" for none.
        name: of the node.

    Raises:
        ValueError: τ is not above 0.
    """
    from onnx import helper

    if not temperature > 0:
        raise ValueError(f"{OP_TYPE}: temperature must be above 0, received {temperature}")
    if mask and not values:
        # TensorRT's parser refuses an omitted input before another one: the bank takes V's place
        values = class_embeddings
    inputs = [patches, class_embeddings, values, mask]
    while not inputs[-1]:
        inputs.pop()
    return helper.make_node(
        OP_TYPE,
        inputs,
        [output],
        name=name,
        domain=DOMAIN,
        temperature=float(temperature),
        plugin_namespace=PLUGIN_NAMESPACE,
        plugin_version=PLUGIN_VERSION,
    )


def local_similarity_function(
    opset: int = 17, *, with_values: bool = False, with_mask: bool = False
) -> FunctionProto:
    """The function that every node of the model without a plugin becomes.

    A function cannot test for an optional input, so it is built for the inputs that the model's
    nodes have. Features are cast to float32 first: half-precision patches are accepted.

    Args:
        opset: of the model, 17 to 20.
        with_values: nodes give V as their third input.
        with_mask: nodes give a mask as their fourth input.

    Raises:
        ValueError: an opset outside 17 to 20.
    """
    from onnx import helper

    if opset not in OPSETS:
        raise ValueError(f"opset: expected {OPSETS.start} to {OPSETS.stop - 1}, received {opset}")
    count = 4 if with_mask else 3 if with_values else 2
    nodes = [*_unit_rows(opset), *_similarities(with_values), *_weighed_sum(with_values, with_mask)]
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        list(_INPUTS[:count]),
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes=["temperature"],
        doc_string="Y = sum over patches of softmax(temperature * X T') * (X V'), X of unit rows",
    )


def attach_function(model: ModelProto) -> ModelProto:
    """Give a model that holds the node its function and the domain's import, in place.

    Returns:
        The same model.

    Raises:
        ValueError: no node of this operator, nodes that differ in their optional inputs, or a
            model whose opset is outside 17 to 20.
    """
    from onnx import helper

    kinds = {
        (_has_values(node), len(node.input) > 3 and node.input[3] != "")
        for node in model.graph.node
        if (node.domain, node.op_type) == (DOMAIN, OP_TYPE)
    }
    if len(kinds) != 1:
        raise ValueError(
            f"{OP_TYPE}: the nodes of one model share one function, so all or none of them may "
            f"have values, and so with a mask; found {len(kinds)} kinds of node, expected 1"
        )
    ((with_values, with_mask),) = kinds
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    function = local_similarity_function(opset, with_values=with_values, with_mask=with_mask)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.functions.append(function)
    return model


def _has_values(node: NodeProto) -> bool:
    return len(node.input) > 2 and node.input[2] not in ("", node.input[1])


def _node(op_type: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    from onnx import helper

    return helper.make_node(op_type, inputs.split(), [output], name=f"ls_{output}", **attributes)


def _constant(name: str, value: np.ndarray | np.generic) -> NodeProto:
    # `value=` tensors: clean-up tools turn value_float scalars inside functions into doubles
    import numpy as np
    from onnx import numpy_helper

    return _node("Constant", "", name, value=numpy_helper.from_array(np.asarray(value), name))


def _unit_rows(opset: int) -> list[NodeProto]:
    import numpy as np
    from onnx import TensorProto

    nodes = [_node("Cast", "X", "x", to=TensorProto.FLOAT)]
    if opset >= 18:
        nodes += [
            _constant("last_axis", np.array([-1], np.int64)),
            _node("ReduceL2", "x last_axis", "raw_length", keepdims=1),
        ]
    else:
        nodes.append(_node("ReduceL2", "x", "raw_length", axes=[-1], keepdims=1))
    return [
        *nodes,
        _constant("floor", np.float32(1e-12)),
        _node("Max", "raw_length floor", "length"),
        _node("Div", "x length", "unit"),
    ]


def _similarities(with_values: bool) -> list[NodeProto]:
    from onnx import TensorProto

    nodes = [
        _node("Cast", "T", "t", to=TensorProto.FLOAT),
        _node("Transpose", "t", "t_columns", perm=[1, 0]),
        _node("MatMul", "unit t_columns", "similarity"),
    ]
    if with_values:
        nodes += [
            _node("Cast", "V", "v", to=TensorProto.FLOAT),
            _node("Transpose", "v", "v_columns", perm=[1, 0]),
            _node("MatMul", "unit v_columns", "weighed"),
        ]
    return nodes


def _weighed_sum(with_values: bool, with_mask: bool) -> list[NodeProto]:
    import numpy as np

    weighed = "weighed" if with_values else "similarity"
    nodes = [
        _temperature(),
        _node("Mul", "similarity temperature", "logits"),
        _constant("patch_axis", np.array([1], np.int64)),
    ]
    logits = "logits"
    if with_mask:
        nodes += [
            _constant("mask_axis", np.array([2], np.int64)),
            _node("Unsqueeze", "mask mask_axis", "seen"),
            _constant("lowest", np.float32(-1e30)),
            _constant("zero", np.float32(0)),
            _node("Where", "seen logits lowest", "seen_logits"),
            _node("Where", f"seen {weighed} zero", "seen_weighed"),
        ]
        logits, weighed = "seen_logits", "seen_weighed"
    return [
        *nodes,
        _node("Softmax", logits, "weights", axis=1),
        _node("Mul", f"weights {weighed}", "parts"),
        _node("ReduceSum", "parts patch_axis", "Y", keepdims=0),
    ]


def _temperature() -> NodeProto:
    """A Constant whose value is the node's attribute."""
    from onnx import AttributeProto, helper

    node = helper.make_node("Constant", [], ["temperature"], name="ls_temperature")
    reference = AttributeProto(
        name="value_float", type=AttributeProto.FLOAT, ref_attr_name="temperature"
    )
    node.attribute.append(reference)
    return node

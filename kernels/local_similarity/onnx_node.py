"""The operator in ONNX: a custom-domain node and the model-local function that spells it out.

ONNX Runtime inlines the function; TensorRT takes the plugin of the same name where one is
registered, which `plugin_namespace` on the node asks for (needed from TensorRT 10.15 on).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "onnx_translation_table",
]

DOMAIN = "taidpt"
OP_TYPE = "LocalSimilarity"
PLUGIN_NAMESPACE = "taidpt"
PLUGIN_VERSION = "1"
# LayerNormalization is one node from 17 on; 20 is the newest that onnxruntime 1.18 runs.
OPSETS = range(17, 21)
_INPUTS = ("X", "T", "V", "mask")

# Parts of the function's text that depend on the opset and on the nodes' inputs. From opset 18 on
# the axes of a reduction are an input.
_LENGTH_17 = "raw_length = ReduceL2 <axes = [-1], keepdims = 1> (x)"
_LENGTH = """last_axis = Constant <value = int64[1] {-1}> ()
  raw_length = ReduceL2 <keepdims = 1> (x, last_axis)"""
_WEIGHED = """v = Cast <to = 1> (V)
  v_columns = Transpose <perm = [1, 0]> (v)
  weighed = MatMul (unit, v_columns)"""
_MASKED = """mask_axis = Constant <value = int64[1] {2}> ()
  seen = Unsqueeze (mask, mask_axis)
  lowest = Constant <value = float {-1e30}> ()
  zero = Constant <value = float {0}> ()
  seen_logits = Where (seen, logits, lowest)
  seen_weighed = Where (seen, WEIGHED, zero)"""


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
    from onnx import parser

    if opset not in OPSETS:
        raise ValueError(f"opset: expected {OPSETS.start} to {OPSETS.stop - 1}, received {opset}")
    count = 4 if with_mask else 3 if with_values else 2
    weighed = "weighed" if with_values else "similarity"
    logits, counted = ("seen_logits", "seen_weighed") if with_mask else ("logits", weighed)
    # type 1 is float32; constants are tensors, as clean-up tools turn scalars into doubles
    function = parser.parse_function(f"""
<domain: "{DOMAIN}", opset_import: ["" : {opset}]>
{OP_TYPE} <temperature> ({", ".join(_INPUTS[:count])}) => (Y) {{
  x = Cast <to = 1> (X)
  {_LENGTH if opset >= 18 else _LENGTH_17}
  floor = Constant <value = float {{1e-12}}> ()
  length = Max (raw_length, floor)
  unit = Div (x, length)
  t = Cast <to = 1> (T)
  t_columns = Transpose <perm = [1, 0]> (t)
  similarity = MatMul (unit, t_columns)
  {_WEIGHED if with_values else ""}
  temperature = Constant <value_float: float = @temperature> ()
  logits = Mul (similarity, temperature)
  {_MASKED.replace("WEIGHED", weighed) if with_mask else ""}
  weights = Softmax <axis = 1> ({logits})
  parts = Mul (weights, {counted})
  patch_axis = Constant <value = int64[1] {{1}}> ()
  Y = ReduceSum <keepdims = 0> (parts, patch_axis)
}}""")
    function.doc_string = (
        "Y = sum over patches of softmax(temperature * X T') * (X V'), X of unit rows"
    )
    for node in function.node:
        node.name = f"ls_{node.output[0]}"
    return function


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


def onnx_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The operator's translation for `torch.onnx.export`: to the node, without its function.

        program = torch.onnx.export(model, inputs, dynamo=True,
                                    custom_translation_table=onnx_translation_table())
        proto = attach_function(program.model_proto)

    In two steps, since the exporter's last pass converts opsets and inlines every function first.
    """
    import torch

    import taidpt.kernels.local_similarity.torch_op  # noqa: F401  registers the operator

    return {torch.ops.taidpt.local_similarity.default: _translate}


def _translate(
    patches: Any,
    class_embeddings: Any,
    temperature: float,
    mask: Any = None,
    values: Any = None,
    keep_log_sum: bool = False,
) -> Any:
    import onnx
    from onnxscript import evaluator

    if keep_log_sum:
        raise ValueError(
            "local_similarity is exported for inference: run the export under torch.no_grad()"
        )
    inputs = [patches, class_embeddings]
    if values is not None or mask is not None:
        inputs.append(class_embeddings if values is None else values)
    if mask is not None:
        inputs.append(mask)
    attributes = {
        "temperature": float(temperature),
        "plugin_namespace": PLUGIN_NAMESPACE,
        "plugin_version": PLUGIN_VERSION,
    }
    similarities = evaluator.default().eval(_schema(onnx), inputs, attributes)
    # the log denominators are empty in inference; an exported operator has both its outputs
    return similarities, similarities


def _schema(onnx: Any) -> Any:
    schema = onnx.defs.OpSchema
    parameter = schema.FormalParameter
    optional = schema.FormalParameterOption.Optional
    floats = ["tensor(float16)", "tensor(bfloat16)", "tensor(float)"]
    return schema(
        OP_TYPE,
        DOMAIN,
        1,
        inputs=[
            parameter("X", "TX"),
            parameter("T", "TT"),
            parameter("V", "TV", param_option=optional),
            parameter("mask", "tensor(bool)", param_option=optional),
        ],
        outputs=[parameter("Y", "tensor(float)")],
        type_constraints=[("TX", floats, "patches"), ("TT", floats, "T"), ("TV", floats, "V")],
        attributes=[
            schema.Attribute("temperature", schema.AttrType.FLOAT, "softmax sharpness"),
            schema.Attribute("plugin_namespace", schema.AttrType.STRING, "of the plugin"),
            schema.Attribute("plugin_version", schema.AttrType.STRING, "of the plugin"),
        ],
    )

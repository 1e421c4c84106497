"""The operator in ONNX: a custom-domain node and the model-local function that spells it out.

ONNX Runtime inlines the function; TensorRT takes the plugin of the same name where one is
registered, which `plugin_namespace` on the node asks for (needed from TensorRT 10.15 on). The
second read-out is an operator of its own: a plugin that lacks it must not take its node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

__all__ = [
    "COMPETING_OP_TYPE",
    "DOMAIN",
    "OPSETS",
    "OP_TYPE",
    "PLUGIN_NAMESPACE",
    "PLUGIN_VERSION",
    "attach_function",
    "competing_similarity_function",
    "competing_similarity_node",
    "local_similarity_function",
    "local_similarity_node",
    "onnx_translation_table",
]

DOMAIN = "taidpt"
OP_TYPE = "LocalSimilarity"
COMPETING_OP_TYPE = "CompetingSimilarity"
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


_MASKED_SHARES = """mask_axis = Constant <value = int64[1] {2}> ()
  seen = Unsqueeze (mask, mask_axis)
  zero = Constant <value = float {0}> ()
  seen_shares = Where (seen, shares, zero)"""
_BEST_17 = "Y = ReduceMax <axes = [1], keepdims = 0> (SHARES)"
_BEST = """patch_axis = Constant <value = int64[1] {1}> ()
  Y = ReduceMax <keepdims = 0> (SHARES, patch_axis)"""


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
    if mask and not values:
        # TensorRT's parser refuses an omitted input before another one: the bank takes V's place
        values = class_embeddings
    inputs = [patches, class_embeddings, values, mask]
    while not inputs[-1]:
        inputs.pop()
    return _node(OP_TYPE, inputs, output, temperature, name)


def competing_similarity_node(
    patches: str,
    class_embeddings: str,
    output: str,
    temperature: float,
    *,
    mask: str = "",
    name: str = "competing_similarity",
) -> NodeProto:
    """The node of the second read-out: inputs X [B, P, D], T [C, D], optional mask [B, P] bool.

    Args:
        patches, class_embeddings, mask, name: as of `local_similarity_node`.
        output: name for the shares, [B, C], float32.
        temperature: sharpness over classes, > 0.

    Raises:
        ValueError: τ is not above 0.
    """
    inputs = [patches, class_embeddings, *([mask] if mask else [])]
    return _node(COMPETING_OP_TYPE, inputs, output, temperature, name)


def _node(kind: str, inputs: list[str], output: str, temperature: float, name: str) -> NodeProto:
    from onnx import helper

    if not temperature > 0:
        raise ValueError(f"{kind}: temperature must be above 0, received {temperature}")
    return helper.make_node(
        kind,
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
    count = 4 if with_mask else 3 if with_values else 2
    weighed = "weighed" if with_values else "similarity"
    logits, counted = ("seen_logits", "seen_weighed") if with_mask else ("logits", weighed)
    function = _function(
        OP_TYPE,
        _INPUTS[:count],
        opset,
        f"""{_WEIGHED if with_values else ""}
  {_MASKED.replace("WEIGHED", weighed) if with_mask else ""}
  weights = Softmax <axis = 1> ({logits})
  parts = Mul (weights, {counted})
  patch_axis = Constant <value = int64[1] {{1}}> ()
  Y = ReduceSum <keepdims = 0> (parts, patch_axis)""",
    )
    function.doc_string = (
        "Y = sum over patches of softmax(temperature * X T') * (X V'), X of unit rows"
    )
    return function


def competing_similarity_function(opset: int = 17, *, with_mask: bool = False) -> FunctionProto:
    """The function of the second read-out; arguments and errors as above."""
    best = _BEST if opset >= 18 else _BEST_17
    function = _function(
        COMPETING_OP_TYPE,
        ("X", "T", "mask") if with_mask else ("X", "T"),
        opset,
        f"""shares = Softmax <axis = 2> (logits)
  {_MASKED_SHARES if with_mask else ""}
  {best.replace("SHARES", "seen_shares" if with_mask else "shares")}""",
    )
    function.doc_string = (
        "Y = largest over patches of softmax over classes (temperature * X T'), X of unit rows"
    )
    return function


def _function(kind: str, inputs: Sequence[str], opset: int, read_out: str) -> FunctionProto:
    """A function of inputs to Y, whose text goes on from `similarity` and `logits` [B, P, C]."""
    from onnx import parser

    if opset not in OPSETS:
        raise ValueError(f"opset: expected {OPSETS.start} to {OPSETS.stop - 1}, received {opset}")
    # type 1 is float32; constants are tensors, as clean-up tools turn scalars into doubles
    function = parser.parse_function(f"""
<domain: "{DOMAIN}", opset_import: ["" : {opset}]>
{kind} <temperature> ({", ".join(inputs)}) => (Y) {{
  x = Cast <to = 1> (X)
  {_LENGTH if opset >= 18 else _LENGTH_17}
  floor = Constant <value = float {{1e-12}}> ()
  length = Max (raw_length, floor)
  unit = Div (x, length)
  t = Cast <to = 1> (T)
  t_columns = Transpose <perm = [1, 0]> (t)
  similarity = MatMul (unit, t_columns)
  temperature = Constant <value_float: float = @temperature> ()
  logits = Mul (similarity, temperature)
  {read_out}
}}""")
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

    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    if not {node.op_type for node in ours} & {OP_TYPE, COMPETING_OP_TYPE}:
        raise ValueError(f"the model has no node {DOMAIN}.{OP_TYPE} or {COMPETING_OP_TYPE}")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    functions = []
    if kind := _common(ours, OP_TYPE, lambda node: (_has_values(node), len(node.input) > 3)):
        with_values, with_mask = kind
        functions.append(
            local_similarity_function(opset, with_values=with_values, with_mask=with_mask)
        )
    if kind := _common(ours, COMPETING_OP_TYPE, lambda node: (len(node.input) > 2,)):
        functions.append(competing_similarity_function(opset, with_mask=kind[0]))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.functions.extend(functions)
    return model


def _common(
    nodes: Sequence[NodeProto], kind: str, options: Callable[[NodeProto], tuple[bool, ...]]
) -> tuple[bool, ...] | None:
    """Which optional inputs the nodes of a kind have; None without such nodes.

    Raises:
        ValueError: they differ.
    """
    found = {options(node) for node in nodes if node.op_type == kind}
    if len(found) > 1:
        raise ValueError(
            f"{kind}: the nodes of one model share one function, so all or none of them may "
            f"have values, and so with a mask; found {len(found)} kinds of node, expected 1"
        )
    return found.pop() if found else None


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

    import taidpt.kernels.local_similarity.competing
    import taidpt.kernels.local_similarity.torch_op  # noqa: F401  both register their operators

    return {
        torch.ops.taidpt.local_similarity.default: _translate,
        torch.ops.taidpt.competing_similarity.default: _translate_competing,
    }


def _translate(
    patches: Any,
    class_embeddings: Any,
    temperature: float,
    mask: Any = None,
    values: Any = None,
    keep_log_sum: bool = False,
) -> Any:
    if keep_log_sum:
        raise ValueError(
            "local_similarity is exported for inference: run the export under torch.no_grad()"
        )
    inputs = [patches, class_embeddings]
    if values is not None or mask is not None:
        inputs.append(class_embeddings if values is None else values)
    if mask is not None:
        inputs.append(mask)
    similarities = _emit(OP_TYPE, inputs, temperature)
    # the log denominators are empty in inference; an exported operator has both its outputs
    return similarities, similarities


def _translate_competing(
    patches: Any, class_embeddings: Any, temperature: float, mask: Any = None
) -> Any:
    inputs = [patches, class_embeddings, *([] if mask is None else [mask])]
    return _emit(COMPETING_OP_TYPE, inputs, temperature)


def _emit(kind: str, inputs: list[Any], temperature: float) -> Any:
    import onnx
    from onnxscript import evaluator

    attributes = {
        "temperature": float(temperature),
        "plugin_namespace": PLUGIN_NAMESPACE,
        "plugin_version": PLUGIN_VERSION,
    }
    return evaluator.default().eval(_schema(onnx, kind), inputs, attributes)


def _schema(onnx: Any, kind: str) -> Any:
    schema = onnx.defs.OpSchema
    parameter = schema.FormalParameter
    optional = schema.FormalParameterOption.Optional
    floats = ["tensor(float16)", "tensor(bfloat16)", "tensor(float)"]
    values = [parameter("V", "TV", param_option=optional)] if kind == OP_TYPE else []
    types = [("TX", floats, "patches"), ("TT", floats, "T"), ("TV", floats, "V")]
    return schema(
        kind,
        DOMAIN,
        1,
        inputs=[
            parameter("X", "TX"),
            parameter("T", "TT"),
            *values,
            parameter("mask", "tensor(bool)", param_option=optional),
        ],
        outputs=[parameter("Y", "tensor(float)")],
        type_constraints=types[: 2 + len(values)],
        attributes=[
            schema.Attribute("temperature", schema.AttrType.FLOAT, "softmax sharpness"),
            schema.Attribute("plugin_namespace", schema.AttrType.STRING, "of the plugin"),
            schema.Attribute("plugin_version", schema.AttrType.STRING, "of the plugin"),
        ],
    )

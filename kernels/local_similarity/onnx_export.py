"""torch.onnx.export (dynamo): the torch operator becomes the ONNX node; its function comes after.

    program = torch.onnx.export(model, inputs, dynamo=True,
                                custom_translation_table=onnx_translation_table())
    proto = attach_function(program.model_proto)

In two steps, since the exporter's last pass converts opsets and inlines every function first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taidpt.kernels.local_similarity.onnx_node import (
    DOMAIN,
    OP_TYPE,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
)

__all__ = ["onnx_translation_table"]


def onnx_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For `torch.onnx.export(custom_translation_table=…)`: emits the node, without its function."""
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

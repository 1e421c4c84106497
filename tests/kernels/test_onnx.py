"""The ONNX node and its function in stock ONNX Runtime against the definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from taidpt.kernels.local_similarity import (
    DOMAIN,
    OP_TYPE,
    attach_function,
    local_similarity,
    local_similarity_function,
    local_similarity_node,
    naive,
    onnx_translation_table,
)
from taidpt.kernels.local_similarity.inputs import Inputs
from tests.kernels.cases import TOLERANCES, Case, make_inputs

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

OPTIONS = list(itertools.product((False, True), (False, True)))
FLOATS = {torch.float32: "FLOAT", torch.float16: "FLOAT16", torch.bfloat16: "BFLOAT16"}
ATOL, RTOL = TOLERANCES["forward", torch.float32, "onnxruntime"]


def head_model(inputs: Inputs, opset: int = 17, bank_dtype: torch.dtype = torch.float32) -> Any:
    """X and the optional mask are inputs, the banks constants."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    names = {"mask": "mask" if inputs.mask is not None else ""}
    names["values"] = "V" if inputs.values is not None else ""
    node = local_similarity_node("X", "T", "Y", inputs.temperature, **names)
    element = getattr(onnx.TensorProto, FLOATS[inputs.patches.dtype])
    dim = inputs.patches.shape[2]
    graph_inputs = [helper.make_tensor_value_info("X", element, ["B", "P", dim])]
    if inputs.mask is not None:
        mask = helper.make_tensor_value_info("mask", onnx.TensorProto.BOOL, ["B", "P"])
        graph_inputs.append(mask)
    banks = {"T": inputs.class_embeddings, "V": inputs.values}
    initializers = [
        numpy_helper.from_array(bank.to(bank_dtype).numpy(), name)
        for name, bank in banks.items()
        if bank is not None
    ]
    output = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["B", "C"])
    graph = helper.make_graph([node], "head", graph_inputs, [output], initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    model = attach_function(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    onnx.checker.check_model(model)
    return model


def run(model: Any, inputs: Inputs) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed: dict[str, Any] = {}
    for entry in session.get_inputs():
        tensor = inputs.mask if entry.name == "mask" else inputs.patches
        assert tensor is not None
        feed[entry.name] = tensor.numpy()
    result: np.ndarray[Any, Any] = session.run(None, feed)[0]
    return result


@pytest.mark.parametrize(("masked", "valued"), OPTIONS)
@pytest.mark.parametrize("opset", [17, 18, 19, 20])
def test_function_is_the_definition(opset: int, masked: bool, valued: bool) -> None:
    inputs = make_inputs(Case(3, 49, 81, 96, torch.float32, masked, valued))
    found = run(head_model(inputs, opset), inputs)
    expected = naive.local_similarity(*inputs).numpy()
    np.testing.assert_allclose(found, expected, atol=ATOL, rtol=RTOL)


def test_half_precision_patches() -> None:
    half = make_inputs(Case(2, 10, 20, 64, torch.float16))
    inputs = half._replace(class_embeddings=half.class_embeddings.float())
    found = run(head_model(inputs), inputs)
    assert found.dtype == np.float32
    expected = naive.local_similarity(*inputs).numpy()
    np.testing.assert_allclose(found, expected, atol=ATOL, rtol=RTOL)


def test_bfloat16_patches_through_a_cast() -> None:
    """NumPy has no bfloat16: the model's own input is float32, cast to bfloat16 before the node."""
    inputs = make_inputs(Case(2, 10, 20, 64))
    model = head_model(inputs)
    cast = onnx.helper.make_node("Cast", ["X"], ["X_half"], to=onnx.TensorProto.BFLOAT16)
    model.graph.node[0].input[0] = "X_half"
    model.graph.node.insert(0, cast)
    rounded = inputs._replace(patches=inputs.patches.bfloat16())
    expected = naive.local_similarity(*rounded).numpy()
    np.testing.assert_allclose(run(model, inputs), expected, atol=ATOL, rtol=RTOL)


def test_node_names_its_plugin_and_two_temperatures_share_the_function() -> None:
    inputs = make_inputs(Case(2, 6, 5, 16))
    model = head_model(inputs)
    second = local_similarity_node("X", "T", "Z", 4.0, name="second")
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in second.attribute}
    assert attributes["plugin_namespace"] == b"taidpt"
    assert attributes["plugin_version"] == b"1"
    model.graph.node.append(second)
    model.graph.output[0].name = "Z"
    expected = naive.local_similarity(inputs.patches, inputs.class_embeddings, 4.0).numpy()
    np.testing.assert_allclose(run(model, inputs), expected, atol=ATOL, rtol=RTOL)


def test_invalid_models_raise() -> None:
    inputs = make_inputs(Case(2, 6, 5, 16))
    model = head_model(inputs)
    model.graph.node.append(local_similarity_node("X", "T", "Z", 4.0, values="W"))
    with pytest.raises(ValueError, match="found 2 kinds"):
        attach_function(model)
    with pytest.raises(ValueError, match="17 to 20, received 16"):
        local_similarity_function(16)
    with pytest.raises(ValueError, match="above 0"):
        local_similarity_node("X", "T", "Y", -1.0)


class Head(torch.nn.Module):
    """A module as export sees it: banks are buffers."""

    def __init__(self, inputs: Inputs) -> None:
        super().__init__()
        self.register_buffer("bank", inputs.class_embeddings)
        self.register_buffer("values", inputs.values)

    def forward(self, patches: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return local_similarity(patches, self.bank, 40.0, mask, self.values)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("opset", "masked", "valued"), [(18, False, False), (18, True, False), (20, True, True)]
)
def test_dynamo_export_emits_the_node(opset: int, masked: bool, valued: bool) -> None:
    pytest.importorskip("onnxscript")
    inputs = make_inputs(Case(3, 7, 11, 16, torch.float32, masked, valued))
    tensors = (inputs.patches,) if inputs.mask is None else (inputs.patches, inputs.mask)
    axes = {0: torch.export.Dim("B"), 1: torch.export.Dim("P")}
    with torch.no_grad():
        program = torch.onnx.export(
            Head(inputs).eval(),
            tensors,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            dynamic_shapes=(axes,) * len(tensors),
            custom_translation_table=onnx_translation_table(),
        )
    model = attach_function(program.model_proto)
    assert [node.op_type for node in model.graph.node] == [OP_TYPE]
    onnx.checker.check_model(model)
    other = make_inputs(Case(2, 9, 11, 16, torch.float32, masked), seed=1)
    other = other._replace(class_embeddings=inputs.class_embeddings, values=inputs.values)
    feed = {"X": other.patches.numpy()}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [entry.name for entry in session.get_inputs()]
    feed = {names[0]: other.patches.numpy()}
    if other.mask is not None:
        feed[names[1]] = other.mask.numpy()
    expected = naive.local_similarity(*other).numpy()
    np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=ATOL, rtol=RTOL)

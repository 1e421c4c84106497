"""The second read-out in PyTorch and in ONNX Runtime against its definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from taidpt.kernels.local_similarity import (
    COMPETING_OP_TYPE,
    DOMAIN,
    attach_function,
    chunked,
    competing_similarity,
    competing_similarity_node,
    local_similarity_node,
    naive,
    onnx_translation_table,
)
from taidpt.kernels.local_similarity.inputs import Inputs
from tests.kernels.cases import TOLERANCES, Case, make_inputs

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

ATOL, RTOL = TOLERANCES["forward", torch.float32, "onnxruntime"]


def definition(inputs: Inputs) -> torch.Tensor:
    return naive.competing_similarity(*inputs[:4])


def test_the_definition_on_numbers_done_by_hand() -> None:
    """Two patches, two classes: the first is like the first class, the second like both."""
    patches = torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    share = 1 / (1 + np.exp(-2.0))
    found = naive.competing_similarity(patches, torch.eye(2), 2.0)
    np.testing.assert_allclose(found, [[share, 0.5]], atol=1e-6)
    only_second = torch.tensor([[False, True]])
    found = naive.competing_similarity(patches, torch.eye(2), 2.0, only_second)
    np.testing.assert_allclose(found, [[0.5, 0.5]], atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("elements", [1, 100, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_blocks_are_the_definition(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, elements: int, masked: bool
) -> None:
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", elements)
    inputs = make_inputs(Case(2, 9, 40, 16, dtype, masked))
    found = competing_similarity(*inputs[:4])
    key = "forward", dtype if dtype == torch.float64 else torch.float32, "chunked"
    atol, rtol = TOLERANCES[key]
    torch.testing.assert_close(found, definition(inputs), atol=atol, rtol=rtol)
    assert found.dtype == key[1]
    if masked:
        assert not found[0].any()


def test_bad_input_and_gradients_are_refused() -> None:
    inputs = make_inputs(Case(2, 5, 4, 8), requires_grad=True)
    with pytest.raises(ValueError, match="temperature"):
        competing_similarity(inputs.patches, inputs.class_embeddings, 0.0)
    with pytest.raises(ValueError, match=r"patches .* NaN or infinite"):
        competing_similarity(inputs.patches * torch.nan, inputs.class_embeddings, 1.0)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        competing_similarity(*inputs[:4]).sum().backward()


def model_of(inputs: Inputs, opset: int) -> Any:
    """The node alone; X and the optional mask are inputs, the bank a constant."""
    helper = onnx.helper
    masked = inputs.mask is not None
    nodes = [competing_similarity_node("X", "T", "Y", 40.0, mask="mask" if masked else "")]
    dim = inputs.patches.shape[2]
    entries = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["B", "P", dim])]
    if masked:
        entries.append(helper.make_tensor_value_info("mask", onnx.TensorProto.BOOL, ["B", "P"]))
    bank = onnx.numpy_helper.from_array(inputs.class_embeddings.numpy(), name="T")
    output = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["B", "C"])
    graph = helper.make_graph(nodes, "head", entries, [output], [bank])
    opsets = [helper.make_opsetid("", opset)]
    model = attach_function(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    onnx.checker.check_model(model)
    return model


def run(model: Any, inputs: Inputs) -> np.ndarray[Any, Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [entry.name for entry in session.get_inputs()]
    tensors = [part for part in (inputs.patches, inputs.mask) if part is not None]
    result: np.ndarray[Any, Any] = session.run(
        None, {name: part.numpy() for name, part in zip(names, tensors, strict=True)}
    )[0]
    return result


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("opset", [17, 18, 20])
def test_function_is_the_definition(opset: int, masked: bool) -> None:
    inputs = make_inputs(Case(3, 49, 81, 96, torch.float32, masked))
    found = run(model_of(inputs, opset), inputs)
    np.testing.assert_allclose(found, definition(inputs), atol=ATOL, rtol=RTOL)


def test_one_model_may_have_both_read_outs() -> None:
    inputs = make_inputs(Case(2, 6, 5, 16))
    model = model_of(inputs, 18)
    del model.functions[:]
    model.graph.node.append(local_similarity_node("X", "T", "Z", 40.0))
    model.graph.output[0].name = "Z"
    attach_function(model)
    assert {function.domain for function in model.functions} == {DOMAIN}
    expected = naive.local_similarity(*inputs)
    np.testing.assert_allclose(run(model, inputs), expected, atol=ATOL, rtol=RTOL)
    model.graph.node.append(competing_similarity_node("X", "T", "W", 40.0, mask="mask"))
    with pytest.raises(ValueError, match=r"CompetingSimilarity: .* found 2 kinds"):
        attach_function(model)
    del model.graph.node[:]
    with pytest.raises(ValueError, match=r"the model has no node taidpt\.LocalSimilarity"):
        attach_function(model)


class Head(torch.nn.Module):
    """A module as export sees it."""

    def __init__(self, bank: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)

    def forward(self, patches: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return competing_similarity(patches, self.bank, 40.0, mask)


@pytest.mark.filterwarnings("ignore")
def test_dynamo_export_emits_the_node() -> None:
    pytest.importorskip("onnxscript")
    inputs = make_inputs(Case(3, 7, 11, 16, masked=True))
    axes = {0: torch.export.Dim("B"), 1: torch.export.Dim("P")}
    with torch.no_grad():
        program = torch.onnx.export(
            Head(inputs.class_embeddings).eval(),
            (inputs.patches, inputs.mask),
            dynamo=True,
            verbose=False,
            opset_version=18,
            dynamic_shapes=(axes, axes),
            custom_translation_table=onnx_translation_table(),
        )
    model = attach_function(program.model_proto)
    assert [node.op_type for node in model.graph.node] == [COMPETING_OP_TYPE]
    np.testing.assert_allclose(run(model, inputs), definition(inputs), atol=ATOL, rtol=RTOL)

"""The head: equal to PyTorch in every mode, the custom node and its function whole, last of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from taidpt.export.graph.head import OUTPUTS, append_head
from taidpt.export.graph.onnx_files import run_graph
from taidpt.export.parity.graph_outputs import encoder_pixels, graph_outputs
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.runtime.adapting.similarity import Features, bank_scores
from taidpt.runtime.bundle.manifest import Scoring
from taidpt.runtime.errors import InputError
from tests.export.conftest import count_ops, small_bank, small_graph, small_reference

PICTURES = [picture.pixels for picture in generated_pictures(64)[:6]]
CASES = [
    (Scoring(40.0), "constant", False),
    (Scoring(4.0, 0.2, "center"), "constant", True),
    (Scoring(25.0, 1.0, "log_softmax"), "constant", False),
    (Scoring(40.0, 0.0, "center"), "input", False),
]


@pytest.mark.parametrize(("scoring", "bank_as", "values"), CASES)
@pytest.mark.parametrize("opset", [17, 18])
def test_graph_equals_pytorch(opset: int, scoring: Scoring, bank_as: str, values: bool) -> None:
    bank = small_bank(values=values)
    graph = append_head(small_graph("resnet", opset), bank, scoring, bank_as)
    reference = small_reference("resnet", bank, scoring)
    expected = reference.outputs(encoder_pixels(reference.spec, PICTURES))
    got = graph_outputs(graph, reference.spec, PICTURES, bank)
    assert tuple(got) == OUTPUTS
    for name in OUTPUTS:
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], expected[name], atol=2e-3, err_msg=name)


def test_scores_by_hand() -> None:
    """The formula of the documentation, in plain NumPy on the graph's own features."""
    bank = small_bank()
    graph = append_head(small_graph("resnet"), bank, Scoring(40.0, 0.3, "center"))
    reference = small_reference("resnet", bank, Scoring(40.0))
    out = graph_outputs(graph, reference.spec, PICTURES)
    similarity = out["patch_features"] @ bank.local_embeddings.T
    weights = np.exp(40 * (similarity - similarity.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    local = bank.scale * (weights * similarity).sum(axis=1) + bank.bias
    whole = bank.scale * (out["global_features"] @ bank.global_embeddings.T) + bank.bias
    merged = 0.7 * whole + 0.3 * local
    np.testing.assert_allclose(out["local_scores"], local, atol=1e-5)
    np.testing.assert_allclose(out["global_scores"], whole, atol=1e-5)
    centred = merged - merged.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(out["scores"], centred, atol=1e-5)


@pytest.mark.parametrize("bank_as", ["constant", "input"])
def test_background_tags_compete_in_the_transform_and_have_no_score(bank_as: str) -> None:
    nouns = replace(small_bank(5), names=tuple(f"noun {index}" for index in range(5)))
    bank = replace(small_bank(), background=nouns)
    scoring = Scoring(40.0, 0.4, "center")
    graph = append_head(small_graph("vit"), bank, scoring, bank_as)
    reference = small_reference("vit", bank, scoring)
    got = graph_outputs(graph, reference.spec, PICTURES, bank)
    alone = [
        graph_outputs(
            append_head(small_graph("vit"), one, Scoring(40.0, 0.4)), reference.spec, PICTURES
        )["scores"]
        for one in (small_bank(), nouns)
    ]
    mean = np.concatenate(alone, axis=1).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(got["scores"], alone[0] - mean, atol=1e-5)
    assert got["global_scores"].shape == got["local_scores"].shape == alone[0].shape
    expected = reference.outputs(encoder_pixels(reference.spec, PICTURES))
    for name in OUTPUTS[:3]:
        np.testing.assert_allclose(got[name], expected[name], atol=2e-3, err_msg=name)
    features = Features(got["global_features"], got["patch_features"])
    np.testing.assert_allclose(bank_scores(features, bank, scoring), got["scores"], atol=1e-5)


def test_features_have_unit_length(family: str) -> None:
    bank = small_bank()
    graph = append_head(small_graph(family), bank, Scoring(40.0))
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    out = run_graph(graph, {"frames": frames})
    for name in ("global_features", "patch_features"):
        np.testing.assert_allclose(np.linalg.norm(out[name], axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16"])
def test_head_casts_half_precision_to_fp32(dtype: str) -> None:
    """On an encoder that gives half-precision features the head is fp32 throughout."""
    helper, kind = onnx.helper, getattr(onnx.TensorProto, dtype)
    outputs = [
        helper.make_tensor_value_info("raw_global_feature", kind, ["batch", 32]),
        helper.make_tensor_value_info("raw_patch_features", kind, ["batch", 4, 32]),
    ]
    inputs = [
        helper.make_tensor_value_info("g", kind, ["batch", 32]),
        helper.make_tensor_value_info("p", kind, ["batch", 4, 32]),
    ]
    nodes = [
        helper.make_node("Identity", ["g"], ["raw_global_feature"], name="a"),
        helper.make_node("Identity", ["p"], ["raw_patch_features"], name="b"),
    ]
    encoder = helper.make_model(
        helper.make_graph(nodes, "halves", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    graph = append_head(encoder, small_bank(), Scoring(40.0))
    inferred = onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)
    low = {
        value.name
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == kind
    }
    assert low <= {"g", "p", "raw_global_feature", "raw_patch_features"}
    if dtype == "FLOAT16":
        generator = np.random.default_rng(0)
        features = {
            "g": generator.standard_normal((2, 32)).astype(np.float16),
            "p": generator.standard_normal((2, 4, 32)).astype(np.float16),
        }
        out = run_graph(graph, features)
        assert out["scores"].dtype == np.float32
        length = np.linalg.norm(features["g"].astype(np.float64), axis=1, keepdims=True)
        np.testing.assert_allclose(out["global_features"], features["g"] / length, atol=1e-6)


@pytest.mark.parametrize("bank_as", ["constant", "input"])
def test_custom_node_and_function_are_whole(family: str, bank_as: str) -> None:
    graph = append_head(small_graph(family), small_bank(), Scoring(33.0), bank_as)
    node = next(node for node in graph.graph.node if node.domain == "taidpt")
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert node.op_type == "LocalSimilarity"
    assert attributes["temperature"] == 33.0
    assert attributes["plugin_namespace"] == b"taidpt"
    assert attributes["plugin_version"] == b"1"
    (function,) = graph.functions
    assert (function.domain, function.name) == (node.domain, node.op_type)
    assert count_ops(graph)["taidpt.LocalSimilarity"] == 1
    assert {entry.domain for entry in graph.opset_import} == {"", "taidpt"}
    assert all(item.name for item in graph.graph.node)


def test_encoder_is_left_alone() -> None:
    encoder = small_graph("vit")
    before = encoder.SerializeToString(deterministic=True)
    append_head(encoder, small_bank(), Scoring(40.0))
    assert encoder.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("bank_as", ["constant", "input"])
def test_adapted_rows_leave_the_graphs_nodes_and_size_as_they_are(bank_as: str) -> None:
    """So an engine of it is as large and as fast: `taidpt adapt` changes values alone."""
    bank, encoder = small_bank(), small_graph("resnet")
    rows = np.roll(bank.local_embeddings, 1, axis=0)
    adapted = replace(bank, local_embeddings=rows, scale=bank.scale * 2, bias=bank.bias - 1)
    first, second = (append_head(encoder, one, Scoring(), bank_as) for one in (bank, adapted))
    assert list(first.graph.node) == list(second.graph.node)
    assert first.ByteSize() == second.ByteSize()
    same = first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )
    assert same == (bank_as == "input")


def test_bank_input_takes_any_number_of_tags() -> None:
    scoring = Scoring(40.0)
    graph = append_head(small_graph("resnet"), small_bank(7), scoring, "input")
    for classes in (1, 3, 40):
        bank = small_bank(classes)
        reference = small_reference("resnet", bank, scoring)
        got = graph_outputs(graph, reference.spec, PICTURES, bank)
        assert got["scores"].shape == (len(PICTURES), classes)
        fixed = append_head(small_graph("resnet"), bank, scoring)
        expected = graph_outputs(fixed, reference.spec, PICTURES)
        np.testing.assert_allclose(got["scores"], expected["scores"], atol=1e-5)


@pytest.mark.parametrize(
    ("bank", "scoring", "bank_as", "message"),
    [
        (small_bank(dim=16), Scoring(40.0), "constant", "16 dimensions and the model 32"),
        (small_bank(), Scoring(40.0), "weights", "'weights' is not one of constant, input"),
        (small_bank(values=True), Scoring(40.0), "input", "only be exported as a constant"),
    ],
)
def test_what_does_not_fit(bank: object, scoring: Scoring, bank_as: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        append_head(small_graph("resnet"), bank, scoring, bank_as)  # type: ignore[arg-type]

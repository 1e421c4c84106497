"""int8 and fp8: what the graph may hold, which layers go back, and that TensorRT reads it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from taidpt.export.engines.builder import build_engine
from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import open_session, save_graph
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.export.precision.kept_layers import quantise_until
from taidpt.export.precision.quantise import Quantiser, scheme_for
from taidpt.export.precision.request import EngineOptions
from taidpt.progress import SilentProgress
from taidpt.runtime.bundle.manifest import InputSpec, Scoring
from taidpt.runtime.errors import BackendError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from tests.export.conftest import MEAN, STD, small_bank, small_graph
from tests.export.precision.test_variant import require_rtx


def frames() -> np.ndarray:
    spec = InputSpec(64, 64, MEAN, STD)
    return Preprocessor(spec).batch([picture.pixels for picture in generated_pictures(64)])


@cache
def quantiser(family: str, precision: str, for_cpu: bool = False) -> Quantiser:
    return Quantiser(small_graph(family), frames(), scheme_for(precision, for_cpu), "MinMax")


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_tensorrts_graph_holds_only_what_tensorrt_reads(family: str, precision: str) -> None:
    model = quantiser(family, precision).quantise()
    onnx.checker.check_model(model, full_check=True)
    wanted = onnx.TensorProto.INT8 if precision == "int8" else onnx.TensorProto.FLOAT8E4M3FN
    types = types_of(model)
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    lows = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(lows) > 6
    for node in lows:
        zero = values[node.input[2]]
        assert zero.data_type == wanted
        assert not any(zero.raw_data), f"{node.name}: a zero point"
        assert not any(zero.int32_data), f"{node.name}: a zero point"
    # biases and every other weight stay in floating point
    assert onnx.TensorProto.INT32 not in types.values()
    made_by = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in made_by:
            source = made_by[made_by[node.input[0]].input[0]]
            assert source.op_type not in ("Conv", "Gemm", "MatMul"), "a product's output is rounded"


def test_weights_of_int8_have_a_scale_a_channel() -> None:
    model = quantiser("vit", "int8").quantise()
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    scales = [
        sizes[node.input[1]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and len(sizes.get(node.input[0], ())) > 1
    ]
    assert scales
    assert all(len(shape) == 1 and shape[0] > 1 for shape in scales)


@pytest.mark.parametrize("for_cpu", [False, True])
def test_weights_for_cpus_have_seven_bits(for_cpu: bool) -> None:
    """CPUs without VNNI add two products in 16 bits, which larger weights overflow."""
    model = quantiser("vit", "int8", for_cpu).quantise()
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert weights
    assert (max(int(np.abs(values.astype(int)).max()) for values in weights) <= 64) is for_cpu


@pytest.mark.parametrize("for_cpu", [False, True])
def test_products_of_one_row_a_picture_stay_in_fp32_for_tensorrt(for_cpu: bool) -> None:
    graph = small_graph("resnet")
    kinds = ("Conv", "Gemm") if for_cpu else ("Conv",)
    expected = {node.name for node in graph.graph.node if node.op_type in kinds}
    assert expected == set(quantiser("resnet", "int8", for_cpu).products)
    assert "Gemm" in {node.op_type for node in graph.graph.node}


def test_the_cpus_graph_keeps_chains_in_eight_bits() -> None:
    made = quantiser("resnet", "int8", True).quantise()
    low = onnx.TensorProto.UINT8
    zeros = [n.input[2] for n in made.graph.node if n.op_type == "QuantizeLinear"]
    types = types_of(made)
    assert {types[name] for name in zeros} == {low}
    optimised = open_session(made)
    assert optimised.get_inputs()[0].type == "tensor(uint8)"
    assert len(zeros) > len(quantiser("resnet", "int8", True).products)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_node_function_and_namespace_survive(family: str, precision: str) -> None:
    graph = append_head(quantiser(family, precision).quantise(), small_bank(), Scoring(40.0))
    onnx.checker.check_model(graph, full_check=True)
    (node,) = [node for node in graph.graph.node if node.domain == "taidpt"]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert attributes["plugin_namespace"] == b"taidpt"
    assert [function.name for function in graph.functions] == ["LocalSimilarity"]
    banks = {t.data_type for t in graph.graph.initializer if t.name.endswith("_embeddings")}
    assert banks == {onnx.TensorProto.FLOAT}


@pytest.mark.tensorrt
@pytest.mark.parametrize(("precision", "target"), [("int8", "sm_86"), ("fp8", "sm_89")])
def test_tensorrt_rtx_builds_it(family: str, precision: str, target: str, tmp_path: Path) -> None:
    require_rtx()
    graph = tmp_path / "model.onnx"
    low = quantiser(family, precision).quantise()
    save_graph(append_head(low, small_bank(), Scoring(40.0)), graph)
    options = EngineOptions(precision, (1, 2, 4), 1 << 30, "tensorrt-rtx", target)
    assert len(build_engine(graph, options, tmp_path / "log").data) > 100_000


class CountingQuantiser:
    """Six layers; the real one's answers are names instead of graphs."""

    def __init__(self, **weights: int) -> None:
        self.weights = {name: weights.get(name, 1) for name in "abcdef"}
        self.products = tuple(self.weights)

    def quantise(self, kept: Sequence[str] = (), only: Sequence[str] = ()) -> Any:
        return frozenset(only) if only else frozenset(self.products) - frozenset(kept)


LOSSES = {"a": 0.01, "b": 0.3, "c": 0.02, "d": 0.2, "e": 0.1, "f": 0.0}


def loss_of(low: Any) -> float:
    return sum(LOSSES[name] for name in low)


@pytest.mark.parametrize(
    ("allowed", "kept", "good"),
    [
        (1.0, "", True),
        (0.4, "b", True),
        (0.2, "bd", True),
        (0.05, "bde", True),
        (0.0, "bde", False),
    ],
)
def test_as_few_layers_go_back_as_the_gate_needs(allowed: float, kept: str, good: bool) -> None:
    fake: Any = CountingQuantiser()
    done = quantise_until(fake, lambda low: loss_of(low) <= allowed, loss_of, SilentProgress())
    assert "".join(layer.name for layer in done.kept) == kept
    assert (done.holds, done.layers) == (good, 6)
    if kept:
        assert done.kept[0].loss == LOSSES[kept[0]]


@pytest.mark.parametrize(("heavy", "kept"), [("f", "bdeca"), ("d", "becaf"), ("b", "b")])
def test_layers_with_half_of_the_weights_may_go_back(heavy: str, kept: str) -> None:
    fake: Any = CountingQuantiser(**{heavy: 9})
    done = quantise_until(fake, lambda low: False, loss_of, SilentProgress())
    assert "".join(layer.name for layer in done.kept) == kept
    assert not done.holds


def test_what_cannot_be_calibrated_is_one_line() -> None:
    with pytest.raises(BackendError, match="ONNX Runtime cannot calibrate this encoder for QInt8"):
        Quantiser(small_graph("vit"), frames()[:, :5], scheme_for("int8"))

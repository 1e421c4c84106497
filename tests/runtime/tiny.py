"""A tiny real bundle: an ONNX graph that keeps the graph contract, made with onnx.helper.

It is a stand-in for an exported model where a test needs a bundle in milliseconds: a 4 × 4
convolution as encoder, both heads, and the merge, in standard operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from taidpt.runtime.bank.class_bank import ClassBank, Threshold
from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, PARITY_FILE, BundleWriter
from taidpt.runtime.bundle.manifest import (
    TOP_OUTPUTS,
    GraphInfo,
    InputSpec,
    Manifest,
    ModelInfo,
    Scoring,
    TagEntry,
)
from taidpt.runtime.tagger.active_bank import BANK_INPUTS

__all__ = ["NAMES", "TinySpec", "reference_outputs", "square_input", "tiny_bundle", "tiny_manifest"]

NAMES = ("cat", "dog", "traffic light", "hot dog", "café")
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
TEMPERATURE = 40.0


def square_input(side: int) -> InputSpec:
    """The input of a model that takes squares and crops the centre."""
    return InputSpec(side, side, MEAN, STD)


@dataclass(frozen=True)
class TinySpec:
    """What varies between tiny bundles; the patch is 4 × 4 pixels."""

    height: int = 16
    width: int = 16
    dim: int = 12
    names: tuple[str, ...] = NAMES
    seed: int = 0
    thresholds: tuple[float, ...] = (0.0,)
    bank_as: str = "constant"
    top_k: int | None = None

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // 4, self.width // 4

    def bank(self) -> ClassBank:
        generator = np.random.default_rng(self.seed)
        rows = [_unit(generator.normal(size=(len(self.names), self.dim))) for _ in range(2)]
        return ClassBank.from_rows(
            self.names,
            rows[0],
            rows[1],
            thresholds=self.bank_thresholds(),
            metadata={"tiny": True, "model": tiny_model(self).to_json()},
        )

    def bank_thresholds(self) -> tuple[Threshold, ...]:
        on = np.resize(self.thresholds, len(self.names)).tolist()
        return tuple(Threshold(value, value - 0.1, "default") for value in on)

    def kernel(self) -> npt.NDArray[np.float32]:
        generator = np.random.default_rng(self.seed + 1)
        return generator.normal(size=(self.dim, 3, 4, 4)).astype(np.float32) * np.float32(0.2)


def tiny_bundle(path: Path, spec: TinySpec | None = None) -> Path:
    """Write a tiny bundle to `path` and return it."""
    spec = spec or TinySpec()
    bank = spec.bank()
    with BundleWriter(path) as writer:
        writer.write(MODEL_FILE, tiny_graph(spec, bank).SerializeToString())
        bank.save(writer.path(BANK_FILE))
        writer.write(PARITY_FILE, b'{"schema": 1}\n')
        writer.commit(tiny_manifest(spec, bank))
    return path


def tiny_manifest(spec: TinySpec, bank: ClassBank) -> Manifest:
    tags = zip(bank.names, bank.thresholds, strict=True)
    return Manifest(
        tags=tuple(TagEntry(name, threshold, ("alias of " + name,)) for name, threshold in tags),
        model=tiny_model(spec),
        scoring=Scoring(TEMPERATURE),
        input=InputSpec(spec.height, spec.width, MEAN, STD),
        graph=_graph_info(spec),
        provenance={"created": "2026-01-01T00:00:00+00:00", "maker": "tests/runtime/tiny.py"},
    )


def tiny_model(spec: TinySpec) -> ModelInfo:
    return ModelInfo("tiny", "random", "0" * 64, "none", spec.dim, spec.grid)


def _graph_info(spec: TinySpec) -> GraphInfo:
    inputs = ("frames", *BANK_INPUTS) if spec.bank_as == "input" else ("frames",)
    outputs = GraphInfo.outputs if spec.top_k is None else (*TOP_OUTPUTS, *GraphInfo.outputs[3:])
    return GraphInfo(17, 10, MODEL_FILE, spec.bank_as, inputs, outputs, spec.top_k)


def tiny_graph(spec: TinySpec, bank: ClassBank) -> onnx.ModelProto:
    weights = {
        "mean": np.asarray(MEAN, np.float32) * np.float32(255),
        "std": np.asarray(STD, np.float32) * np.float32(255),
        "kernel": spec.kernel(),
        "patch_shape": np.asarray([0, spec.dim, -1]),
        "half": np.asarray(0.5, np.float32),
        "temperature": np.asarray(TEMPERATURE, np.float32),
        "axis1": np.asarray([1]),
        "k": np.asarray([spec.top_k or 1]),
    }
    if spec.bank_as == "constant":
        weights.update({name: getattr(bank, name) for name in BANK_INPUTS})
    nodes = [
        _node("Cast", ["frames"], "pixels", to=TensorProto.FLOAT),
        _node("Sub", ["pixels", "mean"], "centred"),
        _node("Div", ["centred", "std"], "normal"),
        _node("Transpose", ["normal"], "nchw", perm=[0, 3, 1, 2]),
        _node("Conv", ["nchw", "kernel"], "map", strides=[4, 4]),
        _node("Reshape", ["map", "patch_shape"], "columns"),
        _node("Transpose", ["columns"], "patches", perm=[0, 2, 1]),
        _node("LpNormalization", ["patches"], "patch_features", axis=-1, p=2),
        _node("ReduceMean", ["patches"], "mean_patch", axes=[1], keepdims=0),
        _node("LpNormalization", ["mean_patch"], "global_features", axis=-1, p=2),
        _node("Transpose", ["global_embeddings"], "global_rows", perm=[1, 0]),
        _node("Transpose", ["local_embeddings"], "local_rows", perm=[1, 0]),
        _node("MatMul", ["global_features", "global_rows"], "global_cosines"),
        _node("MatMul", ["patch_features", "local_rows"], "cosines"),
        _node("Mul", ["cosines", "temperature"], "sharp"),
        _node("Softmax", ["sharp"], "weights", axis=1),
        _node("Mul", ["weights", "cosines"], "weighted"),
        _node("ReduceSum", ["weighted", "axis1"], "local_similarity", keepdims=0),
        _node("Mul", ["global_cosines", "scale"], "global_scaled"),
        _node("Add", ["global_scaled", "bias"], "global_scores"),
        _node("Mul", ["local_similarity", "scale"], "local_scaled"),
        _node("Add", ["local_scaled", "bias"], "local_scores"),
        _node("Add", ["global_scores", "local_scores"], "sum"),
        _node("Mul", ["sum", "half"], "scores"),
    ]
    if spec.top_k is not None:
        best = helper.make_node("TopK", ["scores", "k"], list(TOP_OUTPUTS), name="top", axis=-1)
        nodes.append(best)
    return _model(spec, nodes, weights)


def reference_outputs(
    spec: TinySpec, frames: npt.NDArray[np.uint8], bank: ClassBank | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """The same in NumPy, float64: what the tiny bundle must give."""
    bank = bank or spec.bank()
    pixels = (frames / 255.0 - MEAN) / STD
    rows, columns = spec.grid
    blocks = pixels.reshape(len(frames), rows, 4, columns, 4, 3)
    patches = np.einsum("nricjx,dxij->nrcd", blocks, spec.kernel().astype(float))
    patches = patches.reshape(len(frames), rows * columns, spec.dim)
    features = _unit(patches)
    whole = _unit(patches.mean(axis=1))
    cosines = features @ bank.local_embeddings.T
    weights = np.exp(TEMPERATURE * (cosines - cosines.max(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    local = bank.scale * (weights * cosines).sum(axis=1)
    scores = (bank.scale * (whole @ bank.global_embeddings.T) + local) / 2
    found = {"scores": scores, "patch_features": features, "global_features": whole}
    return {name: value.astype(np.float32) for name, value in found.items()}


def _model(
    spec: TinySpec, nodes: list[onnx.NodeProto], weights: dict[str, npt.NDArray[Any]]
) -> onnx.ModelProto:
    swappable = spec.bank_as == "input"
    C: int | str = "C" if swappable else len(spec.names)
    D, P = spec.dim, spec.grid[0] * spec.grid[1]
    shapes: dict[str, list[Any]] = {
        "top_scores": ["N", spec.top_k],
        "top_indices": ["N", spec.top_k],
        "scores": ["N", C],
        "global_scores": ["N", C],
        "local_scores": ["N", C],
        "global_features": ["N", D],
        "patch_features": ["N", P, D],
    }
    bank = {name: [C, D] if name.endswith("embeddings") else [C] for name in BANK_INPUTS}
    kinds = {"top_indices": TensorProto.INT64}
    outputs = _graph_info(spec).outputs
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            _value("frames", TensorProto.UINT8, ["N", spec.height, spec.width, 3]),
            *(_value(name, TensorProto.FLOAT, bank[name]) for name in BANK_INPUTS if swappable),
        ],
        [_value(name, kinds.get(name, TensorProto.FLOAT), shapes[name]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **attributes)


def _value(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _unit(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)

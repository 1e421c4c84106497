"""The scoring head, added to an encoder's graph as the last step of every export.

It takes the encoder's raw features in fp32, fp16 or bf16, and computes in fp32: low precision loses
most in norms, the local softmax and sums over D. No tool may run over the graph afterwards:
optimisers and converters inline or damage the custom node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.export.graph.onnx_files import (
    IR_VERSION,
    RAW_GLOBAL,
    RAW_PATCHES,
    NodeAdder,
    check_graph,
)
from taidpt.kernels.local_similarity.onnx_node import attach_function, local_similarity_node
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.manifest import TOP_OUTPUTS, GraphInfo, Scoring
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.active_bank import BANK_INPUTS

if TYPE_CHECKING:
    import onnx

__all__ = ["OUTPUTS", "append_head", "graph_info"]

OUTPUTS = ("scores", "global_scores", "local_scores", "global_features", "patch_features")
# With top-k, not all scores leave the device.
_BEST_OUTPUTS = (*TOP_OUTPUTS, "global_features", "patch_features")
_MOST_K = 3840  # limit of TensorRT's TopK layer
_EPSILON = 1e-12  # that of torch.nn.functional.normalize


def append_head(
    encoder: onnx.ModelProto,
    bank: ClassBank,
    scoring: Scoring,
    bank_as: str = "constant",
    top_k: int | None = None,
) -> onnx.ModelProto:
    """A new graph: the encoder's, then the head.

    Args:
        encoder: outputs `raw_global_feature` [N, D], or [N, tiles, D] of which each tag takes the
            best tile, and `raw_patch_features` [N, P, D].
        bank: C tags, and maybe background tags, which are constants in any case; D as the
            encoder's.
        scoring: temperature, merge weight and score transform.
        bank_as: "constant" stores the bank in the graph; "input" makes `global_embeddings` and
            `local_embeddings` [C, D], `scale` and `bias` [C] inputs, C dynamic.
        top_k: None, or the number of best scores to return instead of all: 1 to C.
    Returns:
        A graph with the outputs `scores`, `global_scores`, `local_scores` [N, C] and
        `global_features` and `patch_features` as the encoder's, of unit length, all float32. With
        `top_k`, `top_scores` float32 and `top_indices` int64 [N, K], best first, in place of the
        three scores.
    Raises:
        InputError: the bank does not fit the encoder or the options.
    """
    import onnx

    _check(encoder, bank, bank_as)
    _check_top(bank, top_k)
    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    inner = _shape(model, RAW_GLOBAL)[1:], _shape(model, RAW_PATCHES)[1:]
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    head = _Head(model.graph, opset)
    head.add_bank(bank, bank_as)
    head.add_similarities(len(inner[0]) > 1, scoring, bank.value_embeddings is not None)
    head.add_scores(scoring)
    if top_k is not None:
        head.add_top(top_k)
    classes = len(bank.names) if bank_as == "constant" else "classes"
    del model.graph.output[:]
    model.graph.output.extend(_outputs(classes, inner, top_k))
    attach_function(model)
    check_graph(model)
    return model


def graph_info(opset: int, bank_as: str, top_k: int | None) -> GraphInfo:
    """The manifest's entry for a graph of `append_head`."""
    inputs = ("frames", *BANK_INPUTS) if bank_as == "input" else ("frames",)
    outputs = OUTPUTS if top_k is None else _BEST_OUTPUTS
    return GraphInfo(
        opset=opset,
        ir_version=IR_VERSION,
        bank=bank_as,
        inputs=inputs,
        outputs=outputs,
        top_k=top_k,
    )


class _Head(NodeAdder):
    """One method per part of the head."""

    def __init__(self, graph: onnx.GraphProto, opset: int) -> None:
        super().__init__(graph, "head/")
        self.opset = opset
        self.behind = 0  # number of background tags
        self.rows = {name: name for name in BANK_INPUTS}  # the arrays that are scored with

    def add_bank(self, bank: ClassBank, bank_as: str) -> None:
        """Add the bank's arrays under their names, as initialisers or inputs."""
        from onnx import TensorProto, helper

        if bank_as == "input":
            for name in BANK_INPUTS:
                shape = ["classes", *getattr(bank, name).shape[1:]]
                value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                self.graph.input.append(value)
        else:
            for name in BANK_INPUTS:
                self.constant(name, getattr(bank, name))
            if bank.value_embeddings is not None:
                self.constant("value_embeddings", bank.value_embeddings)
        if bank.background is not None:
            self.behind = len(bank.background.names)
            for name in BANK_INPUTS:
                behind = self.constant(f"background_{name}", getattr(bank.background, name))
                self.rows[name] = self.node("Concat", [name, behind], f"competing_{name}", axis=0)

    def add_similarities(self, tiles: bool, scoring: Scoring, has_values: bool) -> None:
        """Add the nodes from raw features to unit rows and the similarities of both heads."""
        self.unit_rows(RAW_GLOBAL, "global_features")
        self.unit_rows(RAW_PATCHES, "patch_features")
        if tiles:
            rows = [self.rows["global_embeddings"]]
            columns = self.node("Transpose", rows, "global_columns", perm=[1, 0])
            by_tile = self.node("MatMul", ["global_features", columns], "tile_similarity")
            self.reduce("ReduceMax", by_tile, "global_similarity", axis=1, keepdims=0)
        else:
            inputs = ["global_features", self.rows["global_embeddings"]]
            self.node("Gemm", inputs, "global_similarity", transB=1)
        self.graph.node.append(
            local_similarity_node(
                "patch_features",
                self.rows["local_embeddings"],
                "local_similarity",
                scoring.temperature,
                values="value_embeddings" if has_values else "",
                name="head/local_similarity",
            )
        )

    def add_scores(self, scoring: Scoring) -> None:
        """Add the nodes from similarities to the three scores, without those of the background."""
        every = "competing_" if self.behind else ""
        for head in ("global", "local"):
            scaled = [f"{head}_similarity", self.rows["scale"]]
            biased = [self.node("Mul", scaled, f"{head}_scaled"), self.rows["bias"]]
            self.node("Add", biased, f"{every}{head}_scores")
        weight = scoring.merge_weight
        # both heads have the same scale and bias, so the scores may be merged, not the similarities
        for head, part in (("global", 1 - weight), ("local", weight)):
            factor = self.constant(f"{head}_weight", np.float32(part))
            self.node("Mul", [f"{every}{head}_scores", factor], f"{head}_part")
        transform = scoring.transform
        merged = f"{every}scores" if transform == "none" else "merged_scores"
        self.node("Add", ["global_part", "local_part"], merged)
        if transform == "center":
            mean = self.reduce("ReduceMean", merged, "mean_score")
            self.node("Sub", [merged, mean], f"{every}scores")
        elif transform == "log_softmax":
            self.node("LogSoftmax", [merged], f"{every}scores", axis=-1)
        if self.behind:
            bounds = {"first": 0, "last": -self.behind, "tag_axis": 1}
            ends = [self.constant(name, np.array([at], np.int64)) for name, at in bounds.items()]
            for name in ("scores", "global_scores", "local_scores"):
                self.node("Slice", [every + name, *ends], name)

    def add_top(self, count: int) -> None:
        """Add the node from all scores to the best of each frame."""
        self.constant("top_count", np.array([count], np.int64))
        self.node("TopK", ["scores", "top_count"], *TOP_OUTPUTS, axis=-1)

    def unit_rows(self, source: str, target: str) -> None:
        """`target` = the rows of `source`, cast to fp32 and divided by their length."""
        from onnx import TensorProto

        single = self.node("Cast", [source], f"{target}_fp32", to=TensorProto.FLOAT)
        length = self.reduce("ReduceL2", single, f"{target}_length")
        least = self.constant(f"{target}_least", np.float32(_EPSILON))
        safe = self.node("Max", [length, least], f"{target}_safe_length")
        self.node("Div", [single, safe], target)

    def reduce(self, op: str, source: str, target: str, axis: int = -1, keepdims: int = 1) -> str:
        """Reduce one axis. From opset 18 on, axes are an input."""
        if self.opset < 18:
            return self.node(op, [source], target, axes=[axis], keepdims=keepdims)
        axes = "last_axis" if axis == -1 else f"axis_{axis}"
        if all(tensor.name != axes for tensor in self.graph.initializer):
            self.constant(axes, np.array([axis], np.int64))
        return self.node(op, [source, axes], target, keepdims=keepdims)


def _check(encoder: onnx.ModelProto, bank: ClassBank, bank_as: str) -> None:
    dim = _shape(encoder, RAW_GLOBAL)[-1]
    if dim != bank.dim:
        raise InputError(
            f"the bank has {bank.dim} dimensions and the model {dim}: it is of another model"
        )
    if bank_as not in ("constant", "input"):
        raise InputError(f"bank {bank_as!r} is not one of constant, input")
    if bank_as == "input" and bank.value_embeddings is not None:
        raise InputError("a bank with value embeddings can only be exported as a constant")


def _check_top(bank: ClassBank, top_k: int | None) -> None:
    most = min(len(bank.names), _MOST_K)
    if top_k is not None and not 1 <= top_k <= most:
        why = f"the bank has {most} tags" if most < _MOST_K else "the limit of TensorRT"
        raise InputError(f"top-k {top_k}: expected 1 to {most}, {why}")


def _shape(model: onnx.ModelProto, output: str) -> list[int | str]:
    for value in model.graph.output:
        if value.name == output:
            dims = value.type.tensor_type.shape.dim
            return [dim.dim_param or dim.dim_value for dim in dims]
    raise InputError(f"the encoder's graph has no output {output!r}")


def _outputs(
    classes: int | str, inner: tuple[list[int | str], list[int | str]], top_k: int | None
) -> list[onnx.ValueInfoProto]:
    from onnx import TensorProto, helper

    shapes: dict[str, list[Any]] = {
        "top_scores": ["batch", top_k],
        "top_indices": ["batch", top_k],
        "scores": ["batch", classes],
        "global_scores": ["batch", classes],
        "local_scores": ["batch", classes],
        "global_features": ["batch", *inner[0]],
        "patch_features": ["batch", *inner[1]],
    }
    kinds = {"top_indices": TensorProto.INT64}
    return [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shapes[name])
        for name in (OUTPUTS if top_k is None else _BEST_OUTPUTS)
    ]

"""Graphs that differ from their manifest are refused in one line, at load where possible."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, BundleWriter
from taidpt.runtime.bundle.manifest import GraphInfo, Manifest
from taidpt.runtime.errors import BackendError, BundleError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_graph, tiny_manifest

Edit = Callable[[onnx.GraphProto], None]
FRAMES = np.zeros((3, 16, 16, 3), np.uint8)


def write(
    path: Path,
    spec: TinySpec,
    edit: Edit = lambda graph: None,
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> Path:
    """A tiny bundle whose graph and manifest were changed."""
    bank = spec.bank()
    model = tiny_graph(spec, bank)
    edit(model.graph)
    with BundleWriter(path) as writer:
        writer.write(MODEL_FILE, model.SerializeToString())
        bank.save(writer.path(BANK_FILE))
        writer.commit(change(tiny_manifest(spec, bank)))
    return path


def insert(output: str, kind: str, *inputs: str, **attributes: object) -> Edit:
    """Put a node before an output; further inputs are initializers named by the caller."""

    def edit(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for index, name in enumerate(node.output):
                if name == output:
                    node.output[index] = "before"
        for node in graph.node:
            node.input[:] = ["before" if name == output else name for name in node.input]
        graph.node.append(helper.make_node(kind, ["before", *inputs], [output], **attributes))

    return edit


def together(*edits: Edit) -> Edit:
    def edit(graph: onnx.GraphProto) -> None:
        for one in edits:
            one(graph)

    return edit


def declare(output: str, kind: int, shape: list[str | int | None] | None) -> Edit:
    """Declare another type and shape of an output; None leaves even its rank open."""

    def edit(graph: onnx.GraphProto) -> None:
        for value in graph.output:
            if value.name == output:
                value.CopyFrom(helper.make_tensor_value_info(output, kind, shape))

    return edit


def constant(name: str, values: list[int]) -> Edit:
    return lambda graph: graph.initializer.append(numpy_helper.from_array(np.array(values), name))


FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("spec", "edit", "message"),
    [
        (
            TinySpec(),
            together(
                insert("scores", "Unsqueeze", "axes"),
                constant("axes", [2]),
                declare("scores", FLOAT, ["N", 5, 1]),
            ),
            r"output 'scores' is float32 \[N, 5, 1\], the manifest says float32 \[N, 5\]",
        ),
        (
            TinySpec(),
            together(
                insert("patch_features", "Cast", to=TensorProto.DOUBLE),
                lambda graph: (
                    [
                        node.input.__setitem__(0, "patches")
                        for node in graph.node
                        if node.op_type == "MatMul" and node.input[0] == "before"
                    ]
                    and None
                ),
                declare("patch_features", TensorProto.DOUBLE, ["N", 16, 12]),
            ),
            r"'patch_features' is float64 \[N, 16, 12\]",
        ),
        (
            TinySpec(),
            lambda graph: graph.input.append(
                helper.make_tensor_value_info("mask", TensorProto.BOOL, [1])
            ),
            "the graph needs an input 'mask'",
        ),
        (
            TinySpec(),
            lambda graph: graph.output.pop(1) and None,
            "the graph has no output 'global_scores'",
        ),
        (
            TinySpec(),
            lambda graph: graph.input[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 4),
            r"input 'frames' is uint8 \[4, 16, 16, 3\]",
        ),
    ],
    ids=["rank", "type", "input", "output", "batch"],
)
def test_a_graph_is_refused_at_load(
    tmp_path: Path, spec: TinySpec, edit: Edit, message: str
) -> None:
    path = write(tmp_path / "b.taidpt", spec, edit)
    with pytest.raises(BundleError, match=message) as caught:
        Tagger.load(path, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"grid": (10**9, 1)}}, r"manifest says float32 \[N, 1000000000, 12\]"),
        ({"model": {"embed_dim": 10**9}}, r"manifest says float32 \[N, 1000000000\]"),
        ({"input": {"height": 10**9}}, r"manifest says uint8 \[N, 1000000000, 16, 3\]"),
        ({"input": {"name": "pictures"}}, "lists the inputs frames, expected pictures"),
        ({"graph": {"bank": "input"}}, "lists the inputs frames, expected frames, global_embed"),
        ({"graph": {"outputs": (*GraphInfo.outputs, "more")}}, "unknown output 'more'"),
        (
            {"graph": {"top_k": 9, "outputs": ("top_scores", "top_indices", "patch_features")}},
            "top_k 9 of 5 tags",
        ),
    ],
)
def test_a_manifest_that_promises_something_else_is_refused_at_load(
    tmp_path: Path, change: dict[str, dict[str, object]], message: str
) -> None:
    ((part, values),) = change.items()
    path = write(
        tmp_path / "b.taidpt",
        TinySpec(),
        change=lambda manifest: dataclasses.replace(
            manifest, **{part: dataclasses.replace(getattr(manifest, part), **values)}
        ),
    )
    with pytest.raises(BundleError, match=message):
        Tagger.load(path, device="cpu")


@pytest.mark.parametrize(
    ("spec", "edit", "message"),
    [
        (
            TinySpec(),
            together(
                insert("scores", "Tile", "repeats"),
                constant("repeats", [2, 1]),
                declare("scores", FLOAT, ["M", None]),
            ),
            r"'scores' as float32 \[6, 5\], expected float32 \[3, 5\]",
        ),
        (
            TinySpec(top_k=2),
            together(
                insert("top_indices", "Add", "hundred"),
                constant("hundred", [100]),
            ),
            r"the graph gave tag 10\d of 5",
        ),
    ],
    ids=["rows", "indices"],
)
def test_a_graph_that_leaves_its_sizes_open_is_checked_as_it_runs(
    tmp_path: Path, spec: TinySpec, edit: Edit, message: str
) -> None:
    path = write(tmp_path / "b.taidpt", spec, edit)
    with (
        Tagger.load(path, device="cpu") as tagger,
        pytest.raises(BundleError, match=message),
    ):
        tagger.tag_batch(FRAMES)


@pytest.mark.parametrize("size", [1 << 31, 1 << 40])
def test_a_graph_that_fails_prints_nothing_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], size: int
) -> None:
    """ONNX Runtime's loggers write to the descriptor, before any error of ours."""
    edit = together(
        constant("huge", [size, size]),
        lambda graph: graph.node.append(
            helper.make_node("ConstantOfShape", ["huge"], ["much"], name="huge")
        ),
        lambda graph: graph.node.append(helper.make_node("ReduceSum", ["much"], ["sum2"])),
        insert("scores", "Add", "sum2"),
    )
    path = write(tmp_path / "b.taidpt", TinySpec(), edit)
    with (
        pytest.raises((BundleError, BackendError)) as caught,
        Tagger.load(path, device="cpu") as tagger,
    ):
        tagger.tag_batch(FRAMES)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")

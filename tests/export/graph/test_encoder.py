"""The encoder's graph alone: values, batch, versions, names, and nothing of the machine inside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from taidpt.export.graph import encoder as graph_encoder
from taidpt.export.graph.encoder import FrameEncoder
from taidpt.export.graph.onnx_files import finish_graph, run_graph
from taidpt.runtime.errors import BackendError, InputError
from tests.export.conftest import (
    count_ops,
    export_encoder,
    small_encoder,
    small_graph,
    small_input,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


BUILDS = [("resnet", 17), ("resnet", 18), ("vit", 17), ("vit", 18), ("vit", 20)]


@pytest.mark.parametrize(("family", "opset"), BUILDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_graph_equals_pytorch(family: str, opset: int, batch: int) -> None:
    graph = small_graph(family, opset)
    got = run_graph(graph, {"frames": frames(batch)})
    with torch.no_grad():
        module = FrameEncoder(small_encoder(family), small_input())
        expected = module(torch.from_numpy(frames(batch)))
    for name, value in zip(("raw_global_feature", "raw_patch_features"), expected, strict=True):
        np.testing.assert_allclose(got[name], value.numpy(), rtol=1e-4, atol=1e-4)


def test_normalisation_is_open_clips() -> None:
    """The graph's input is raw bytes: the normalisation is inside, and it is the transform's."""
    import open_clip
    from PIL import Image

    spec = small_input()
    pixels = frames(1)[0]
    transform = open_clip.image_transform((64, 64), is_train=False, mean=spec.mean, std=spec.std)
    encoder = small_encoder("resnet")
    with torch.no_grad():
        expected = encoder(transform(Image.fromarray(pixels))[None])[1].numpy()
    got = run_graph(small_graph("resnet"), {"frames": pixels[None]})["raw_patch_features"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "opset"), BUILDS)
def test_versions_names_and_shapes(family: str, opset: int) -> None:
    graph = small_graph(family, opset)
    assert graph.ir_version == 10
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
    names = [node.name for node in graph.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    value = graph.graph.input[0]
    dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    assert (value.name, dims) == ("frames", ["batch", 64, 64, 3])
    assert value.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_graph_holds_nothing_of_this_machine(family: str) -> None:
    data = small_graph(family).SerializeToString()
    for trace in (b".py", b"site-packages", b"/home", str(Path.cwd()).encode()):
        assert trace not in data


def test_export_is_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    # by PyTorch again, not a copy of what it exported before
    monkeypatch.setattr(graph_encoder, "_export", graph_encoder._export.__wrapped__)  # type: ignore[attr-defined]
    again = export_encoder(small_encoder("vit"), small_input())
    first = small_graph("vit").SerializeToString(deterministic=True)
    assert again.SerializeToString(deterministic=True) == first


def test_operators_are_the_golden_ones(family: str) -> None:
    """A change of the exported graph shows in review: UPDATE by hand when it is meant."""
    expected = json.loads((GOLDEN / f"encoder_{family}.json").read_text())
    assert count_ops(small_graph(family)) == expected


def test_layer_norm_stays_one_node() -> None:
    ops = count_ops(small_graph("vit"))
    assert ops["LayerNormalization"] == 8  # ln_pre, five in two blocks, ln_post twice
    assert "ReduceMean" not in ops


def test_resnet_batch_norms_and_projections_are_folded() -> None:
    graph = small_graph("resnet")
    assert "BatchNormalization" not in count_ops(graph)
    produced = {name: node for node in graph.graph.node for name in node.output}
    node = produced["raw_patch_features"]
    while node.op_type in ("Transpose", "Reshape"):
        node = produced[node.input[0]]
    assert node.op_type == "Conv"  # v_proj and c_proj in one


def test_unsupported_opset() -> None:
    with pytest.raises(InputError, match="opset 16 is not one of 17, 18, 19, 20"):
        export_encoder(small_encoder("vit"), small_input(), 16)


def test_encoder_that_pytorch_cannot_export() -> None:
    class Branching(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            flat = images.flatten(1)
            return (flat, images) if float(images.sum()) > 0 else (images, flat)

    with pytest.raises(BackendError, match="PyTorch cannot export this image encoder to ONNX"):
        export_encoder(Branching(), small_input())


def test_nodes_are_sorted_and_named_apart() -> None:
    helper = onnx.helper
    first = helper.make_node("Neg", ["x"], ["a"])
    second = helper.make_node("Abs", ["a"], ["b"], name="n")
    third = helper.make_node("Neg", ["b"], ["y"], name="n")
    value = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([third, second, first], "g", value[:1], value[1:])
    model = finish_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    assert [node.output[0] for node in model.graph.node] == ["a", "b", "y"]
    assert len({node.name for node in model.graph.node}) == 3

"""A graph cannot refer to files outside of its folder, wherever a tensor names them."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from taidpt.runtime.bundle.bundle import BANK_FILE, BundleWriter
from taidpt.runtime.bundle.onnx_weights import check_external_data, external_locations
from taidpt.runtime.errors import BundleError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_graph, tiny_manifest

NAME = "model.onnx"


def outside(location: str, name: str = "w") -> TensorProto:
    """A tensor whose bytes lie elsewhere."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def model_with(initializer: TensorProto, *nodes: onnx.NodeProto) -> onnx.ModelProto:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    add = helper.make_node("Add", ["x", initializer.name], ["y"])
    graph = helper.make_graph([*nodes, add], "g", value[:1], value[1:], [initializer])
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def save(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / NAME
    path.write_bytes(model.SerializeToString())
    return path


def plain() -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), "w")


@pytest.mark.parametrize(
    "location",
    ["../x", "/etc/passwd", "sub/w.data", "other.onnx.data", "./model.onnx.data", "", "C:\\x"],
)
def test_only_the_data_file_beside_the_graph_is_allowed(location: str, tmp_path: Path) -> None:
    path = save(model_with(outside(location)), tmp_path)
    with pytest.raises(BundleError, match=r"only 'model.onnx.data' .* do not use this bundle"):
        check_external_data(path)


def test_the_data_file_must_exist_and_be_no_link(tmp_path: Path) -> None:
    path = save(model_with(outside("model.onnx.data")), tmp_path)
    beside = tmp_path / "model.onnx.data"
    with pytest.raises(BundleError, match="must be a plain file there"):
        check_external_data(path)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    beside.symlink_to(secret)
    with pytest.raises(BundleError, match="must be a plain file there"):
        check_external_data(path)
    beside.unlink()
    beside.write_bytes(bytes(16))
    check_external_data(path)


def test_the_data_file_must_be_listed_in_the_manifest(tmp_path: Path) -> None:
    spec = TinySpec()
    model = tiny_graph(spec, spec.bank())
    model.graph.initializer.append(outside("model.onnx.data"))
    folder = tmp_path / "b.taidpt"
    with BundleWriter(folder) as writer:
        writer.write(NAME, model.SerializeToString())
        spec.bank().save(writer.path(BANK_FILE))
        writer.commit(tiny_manifest(spec, spec.bank()))
    (folder / "model.onnx.data").write_bytes(bytes(16))
    with pytest.raises(BundleError, match=r"manifest\.json does not list it") as caught:
        Tagger.load(folder, device="cpu")
    assert "\n" not in str(caught.value)
    with BundleWriter(folder, base=folder) as writer:
        writer.write("model.onnx.data", bytes(16))
        writer.commit()
    check_external_data(folder / NAME)


def test_a_graph_that_holds_its_weights_passes(tmp_path: Path) -> None:
    check_external_data(save(model_with(plain()), tmp_path))


def hidden(kind: str) -> onnx.ModelProto:
    """The same path in every place where ONNX lets a tensor stand."""
    bad = outside("../x", "hidden")
    if kind == "constant":
        return model_with(plain(), helper.make_node("Constant", [], ["c"], value=bad))
    if kind == "tensors":
        return model_with(plain(), helper.make_node("Odd", [], ["c"], values=[bad, plain()]))
    inner = model_with(plain(), helper.make_node("Constant", [], ["c"], value=bad)).graph
    if kind == "subgraph":
        return model_with(plain(), helper.make_node("If", ["x"], ["c"], then_branch=inner))
    if kind == "subgraphs":
        return model_with(plain(), helper.make_node("Odd", [], ["c"], branches=[inner]))
    model = model_with(plain())
    if kind == "function":
        node = helper.make_node("Constant", [], ["c"], value=bad)
        function = helper.make_function("own", "F", [], ["c"], [node], model.opset_import)
        model.functions.append(function)
    elif kind == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(bad)
    else:
        model.training_info.add().algorithm.CopyFrom(inner)
    return model


@pytest.mark.parametrize(
    "kind", ["constant", "tensors", "subgraph", "subgraphs", "function", "sparse", "training"]
)
def test_paths_are_found_wherever_a_tensor_can_be(kind: str, tmp_path: Path) -> None:
    path = save(hidden(kind), tmp_path)
    assert list(external_locations(path)) == ["../x"]


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    path = save(model_with(outside("model.onnx.data")), tmp_path)
    whole = path.read_bytes()
    generator = random.Random(0)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match="not a readable graph"):
        check_external_data(path)
    for _ in range(300):  # whatever the bytes are: our error or none, and an end
        damaged = bytearray(whole[: generator.randrange(1, len(whole))])
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(BundleError):
            check_external_data(path)


def test_deeply_nested_messages_are_refused(tmp_path: Path) -> None:
    inner = b""
    for _ in range(3000):  # from within: a graph in an attribute in a node in a graph …
        for key in (0x32, 0x2A, 0x0A):
            inner = bytes([key]) + _length(len(inner)) + inner
        if len(inner) > 60_000:
            break
    path = tmp_path / NAME
    path.write_bytes(b"\x3a" + _length(len(inner)) + inner)
    with pytest.raises(BundleError, match="nested too deeply"):
        check_external_data(path)


def _length(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])

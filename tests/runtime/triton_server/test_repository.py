"""What `taidpt export triton` writes, without a server."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.input_spec import NV12
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.triton_client.backend import open_server
from taidpt.runtime.triton_client.tensors import graph_outputs
from taidpt.runtime.triton_server.config_text import Name, message
from taidpt.runtime.triton_server.repository import RepositoryOptions, write_repository
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.support import REPOSITORY


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "street.taidpt")


@pytest.mark.parametrize("top_k", [None, 2])
def test_configurations_are_what_the_server_parses(tmp_path: Path, top_k: int | None) -> None:
    """By its own message type; the steps of the ensemble name tensors of its models."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    path = tiny_bundle(tmp_path / "street.taidpt", TinySpec(top_k=top_k))
    write_repository(str(path), str(tmp_path / "models"), RepositoryOptions("gate.1", 16, 3))
    configs = {}
    for file in (tmp_path / "models").glob("*/config.pbtxt"):
        configs[file.parent.name] = text_format.Parse(file.read_text("utf-8"), pb2.ModelConfig())
    assert set(configs) == {
        f"gate.1{end}" for end in ("", "_graph", "_prepare", "_finish", "_ensemble")
    }
    assert {config.max_batch_size for config in configs.values()} == {16}
    assert configs["gate.1"].instance_group[0].count == 3
    for step in configs["gate.1_ensemble"].ensemble_scheduling.step:
        model = configs[step.model_name]
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        assert set(step.output_map) <= {tensor.name for tensor in model.output}
    graph = configs["gate.1_graph"]
    manifest = Bundle.load(path).manifest
    assert [tensor.name for tensor in graph.output] == [
        name for name in graph_outputs(manifest) if name in manifest.graph.outputs
    ]


def test_files_are_shared_and_whole(bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "other").mkdir(parents=True)
    write_repository(str(bundle), str(models))
    graph = models / "street_graph" / "1" / "model.onnx"
    assert graph.read_bytes() == (bundle / "model.onnx").read_bytes()
    assert os.stat(graph).st_ino == os.stat(bundle / "model.onnx").st_ino  # noqa: PTH116
    assert Bundle.load(models / "street" / "1" / "bundle.taidpt").verify_hashes() == ()
    assert (models / "other").is_dir()
    assert not list(models.glob(".*"))
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((models / "street-kserve.yaml").read_text("utf-8"))
    assert service["kind"] == "InferenceService"
    assert service["metadata"]["name"] == "street"


def test_bad_input(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    write_repository(str(bundle), str(models))
    before = sorted(path.name for path in models.iterdir())
    with pytest.raises(InputError, match="street: is there already; remove it, or give another"):
        write_repository(str(bundle), str(models))
    with pytest.raises(InputError, match=r"'a/b' is no name of a model"):
        write_repository(str(bundle), str(models), RepositoryOptions("a/b"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: cannot be written: File exists"):
        write_repository(str(bundle), str(tmp_path / "file"))
    damaged = tiny_bundle(tmp_path / "damaged.taidpt")
    (damaged / "model.onnx").write_bytes((damaged / "model.onnx").read_bytes()[:-1])
    with pytest.raises(BundleError):
        write_repository(str(damaged), str(models))

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.link", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_repository(str(bundle), str(models), RepositoryOptions("more"))
    assert sorted(path.name for path in models.iterdir()) == before


def test_nv12_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = Bundle.load(bundle)
    changed = dataclasses.replace(loaded.manifest.input, format=NV12)
    nv12 = dataclasses.replace(loaded, manifest=dataclasses.replace(loaded.manifest, input=changed))
    monkeypatch.setattr(Bundle, "load", lambda path: nv12)
    monkeypatch.setattr(Bundle, "require_whole", lambda self: self)
    with pytest.raises(InputError, match="takes NV12 frames, and a server takes RGB"):
        write_repository(str(bundle), str(tmp_path / "models"))


@pytest.mark.parametrize(
    "url", ["triton://", "triton://host", "triton:///street", "triton://h:x/m", "triton://h/a/b"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match=r"expected triton://HOST\[:PORT\]/MODEL"):
        open_server(url)


def test_text_of_a_configuration() -> None:
    fields = {"a": 'say "x"\n', "b": Name("KIND"), "c": [1, -1], "d": {"e": True}, "f": []}
    assert message(fields) == 'a: "say \\"x\\"\\n"\nb: KIND\nc: 1\nc: -1\nd {\n  e: true\n}'


def test_page_names_every_tensor(bundle: Path) -> None:
    text = (REPOSITORY / "docs" / "fleet.md").read_text("utf-8")
    manifest: Manifest = Bundle.load(bundle).manifest
    kept = set(graph_outputs(manifest)) - {"global_scores", "local_scores"}
    for name in (*kept, "names", "on", "probability", "manifest", "class_bank", "bundle_id"):
        assert f"`{name}`" in text

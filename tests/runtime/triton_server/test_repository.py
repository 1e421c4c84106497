"""What `taidpt export triton` writes, without a server."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.input_spec import NV12
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import BackendError, BundleError, InputError
from taidpt.runtime.triton_client.backend import open_server
from taidpt.runtime.triton_client.tensors import graph_outputs
from taidpt.runtime.triton_server.config_text import Name, message
from taidpt.runtime.triton_server.repository import RepositoryOptions, write_repository
from tests.runtime.stub_driver import add_stub_engine
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.videos import colour_frame, write_video
from tests.support import REPOSITORY, require


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "street.taidpt")


@pytest.mark.parametrize("top_k", [None, 2])
def test_configurations_are_what_the_server_parses(tmp_path: Path, top_k: int | None) -> None:
    """By its own message type; the steps of the ensemble name tensors of its models."""
    path = tiny_bundle(tmp_path / "street.taidpt", TinySpec(top_k=top_k))
    write_repository(str(path), str(tmp_path / "models"), RepositoryOptions("gate.1", 16, 3))
    configs = {}
    for file in (tmp_path / "models").glob("*/config.pbtxt"):
        configs[file.parent.name] = parsed(file)
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


@pytest.mark.parametrize("name", ["street", "Gate_1.b", "9cams"])
def test_kserve_takes_the_service(bundle: Path, tmp_path: Path, name: str) -> None:
    """Every field is one of KServe's own types, which its Python package has from its CRD."""
    types = REPOSITORY / "build" / "kserve" / "kserve" / "models"
    require("kserve", types.is_dir(), "pip install --no-deps --target build/kserve kserve")
    write_repository(str(bundle), str(tmp_path), RepositoryOptions(name))
    service = yaml.safe_load((tmp_path / f"{name}-kserve.yaml").read_text("utf-8"))
    assert (service["apiVersion"], service["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    assert unknown_fields(types, "V1beta1InferenceService", service) == []
    model = service["spec"]["predictor"]["model"]
    # KServe appends the arguments of a service to those of its runtime, which start the server
    assert "args" not in model
    assert {mount["name"] for mount in model["volumeMounts"]} == {
        volume["name"] for volume in service["spec"]["predictor"]["volumes"]
    }
    wrong = {**service, "spec": {"predictor": {"model": {**model, "storageURI": ""}, "modle": 1}}}
    assert unknown_fields(types, "V1beta1InferenceService", wrong) == [
        "V1beta1ModelSpec.storageURI",
        "V1beta1PredictorSpec.modle",
    ]


def unknown_fields(types: Path, kind: str, value: object) -> list[str]:
    """Fields that KServe's type does not have, or whose values are of other types.

    Types of Kubernetes itself, which KServe's package does not bring, are not looked into.
    """
    if kind.startswith("list["):
        assert isinstance(value, list), kind
        return [one for item in value for one in unknown_fields(types, kind[5:-1], item)]
    plain = {"str": str, "int": int, "bool": bool}.get(kind)
    if plain is not None:
        return [] if isinstance(value, plain) else [f"{kind}: {value!r}"]
    file = types / f"{re.sub('(?<=[a-z0-9])(?=[A-Z])', '_', kind).lower()}.py"
    if not file.is_file():
        return []
    (made,) = (
        node
        for node in ast.parse(file.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == kind
    )
    tables = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in made.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Dict)
    }
    inner = {tables["attribute_map"][key]: what for key, what in tables["openapi_types"].items()}
    assert isinstance(value, dict), kind
    return [
        one
        for key, item in value.items()
        for one in (unknown_fields(types, inner[key], item) if key in inner else [f"{kind}.{key}"])
    ]


def test_plans_are_chosen_by_the_gpu(bundle: Path, tmp_path: Path) -> None:
    """The fastest engine of each architecture, and one for all others as the default."""
    for precision, architecture, compatible, largest in (
        ("fp32", "sm_87", False, 4),
        ("fp16", "sm_87", False, 4),
        ("fp16", "sm_120", False, 6),
        ("fp32", "sm_80", True, 16),
    ):
        content = f"{precision} {architecture}".encode()
        add_stub_engine(
            bundle,
            (1, 1, largest),
            content=content,
            precision=precision,
            architecture=architecture,
            hardware_compatible=compatible,
        )
    add_stub_engine(bundle, content=b"stale", precision="int8", graph_sha256="0" * 64)
    models = tmp_path / "models"
    write_repository(str(bundle), str(models), RepositoryOptions("gate", 8, plan=True))
    folder = models / "gate_graph"
    plans = {path.name: path.read_text("utf-8") for path in (folder / "1").iterdir()}
    assert plans == {
        "model.plan": "fp32 sm_80",
        "sm_87.plan": "fp16 sm_87",
        "sm_120.plan": "fp16 sm_120",
    }
    config = parsed(folder / "config.pbtxt")
    assert config.platform == "tensorrt_plan"
    assert dict(config.cc_model_filenames) == {"8.7": "sm_87.plan", "12.0": "sm_120.plan"}
    assert config.default_model_filename == "model.plan"
    assert config.instance_group[0].kind == config.instance_group[0].KIND_GPU
    batches = {parsed(path).max_batch_size for path in models.glob("*/config.pbtxt")}
    assert batches == {4}  # an ensemble's models take the same batches


def test_plans_that_cannot_be_taken(bundle: Path, tmp_path: Path) -> None:
    models = str(tmp_path / "models")
    plan = RepositoryOptions(plan=True)
    with pytest.raises(InputError, match=r"has no TensorRT engine of its graph; build one on a"):
        write_repository(str(bundle), models, plan)
    engine = add_stub_engine(bundle, trusted=False, content=b"foreign")
    with pytest.raises(BackendError, match="not built on this machine, and an engine is exec"):
        write_repository(str(bundle), models, plan)
    write_repository(str(bundle), models, RepositoryOptions(plan=True, trust_engine=True))
    assert (tmp_path / "models/street_graph/1/sm_87.plan").read_bytes() == engine.read_bytes()
    other = tiny_bundle(tmp_path / "plugin.taidpt")
    add_stub_engine(other, plugin_sha256="0" * 64)
    with pytest.raises(InputError, match="needs a plugin library, which the server has not"):
        write_repository(str(other), models, plan)
    swappable = tiny_bundle(tmp_path / "bank.taidpt", TinySpec(bank_as="input"))
    add_stub_engine(swappable)
    with pytest.raises(InputError, match="no plan of a graph whose bank is an input; leave --pl"):
        write_repository(str(swappable), models, plan)


def parsed(path: Path) -> Any:
    """A configuration in the server's own message type."""
    text_format = pytest.importorskip("google.protobuf.text_format")
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    return text_format.Parse(path.read_text("utf-8"), pb2.ModelConfig())


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
    "url",
    [
        "triton://",
        "triton://host",
        "triton:///street",
        "triton://h:x/m",
        "triton://h/a/b",
        "triton://h/m?x=1",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match=r"expected triton://HOST\[:PORT\]/MODEL"):
        open_server(url)


def test_commands_without_their_server_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taidpt.runtime.triton_client.backend._LOAD_PATIENCE_S", 0.1)
    clip, output = tmp_path / "clip.mp4", tmp_path / "tags.jsonl"
    write_video(clip, [colour_frame(0)] * 3)
    output.write_text("earlier\n")
    url = "triton://127.0.0.1:9/street"
    done = CliRunner().invoke(cli, ["tag", url, str(clip), "--jsonl", str(output)])
    assert isinstance(done.exception, BackendError)
    assert "127.0.0.1:9/street: no server answers" in str(done.exception)
    assert "\n" not in str(done.exception)
    for command in (["export", "triton"], ["archive"]):
        words = [*command, url, *([str(clip)] if command == ["archive"] else [])]
        done = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "out")])
        assert isinstance(done.exception, InputError)
        assert "street: a server; this command needs the bundle's folder" in str(done.exception)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "tags.jsonl"]
    assert output.read_text() == "earlier\n"


def test_text_of_a_configuration() -> None:
    fields = {"a": 'say "x"\n', "b": Name("KIND"), "c": [1, -1], "d": {"e": True}, "f": []}
    assert message(fields) == 'a: "say \\"x\\"\\n"\nb: KIND\nc: 1\nc: -1\nd {\n  e: true\n}'


def test_page_names_every_tensor(bundle: Path) -> None:
    text = (REPOSITORY / "docs" / "fleet.md").read_text("utf-8")
    manifest: Manifest = Bundle.load(bundle).manifest
    kept = set(graph_outputs(manifest)) - {"global_scores", "local_scores"}
    for name in (*kept, "names", "on", "probability", "manifest", "class_bank", "bundle_id"):
        assert f"`{name}`" in text

"""Graphs whose weights lie beside them: written, hashed, run and built from, and never outside.

Protobuf's 2 GB are forced down to a few kilobytes here.
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from taidpt.clip.weights import state_sha256
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.export.engines.builder import build_engine, engine_key
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.export.graph import large_weights as weights_beside, onnx_files as graph_io
from taidpt.export.graph.from_bundle import encoder_of, load_graph
from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.precision.half import to_half
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import add_precision
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, Tagger
from taidpt.runtime.bundle.manifest import Scoring
from taidpt.runtime.errors import BundleError
from tests.export.conftest import count_ops, small_bank, small_graph
from tests.export.test_exporter import some_prompts
from tests.support import require
from tests.taidpt.tiny import VIT, make_clip

DATA = "model.onnx.data"


@pytest.fixture
def low_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_io, "_LARGEST_FILE", 20_000)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose weights were kept beside the graph from the export on."""
    clip = make_clip(VIT)
    state = state_sha256(clip.model.state_dict())
    prompts, out = some_prompts(clip), tmp_path_factory.mktemp("template") / "street.taidpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_io, "_LARGEST_FILE", 20_000)
        patch.setattr(weights_beside, "_LARGE", 4_000)
        bundle = write_bundle(prompts, clip, out, ExportOptions(), SilentProgress()).path
    assert state_sha256(clip.model.state_dict()) == state  # an export leaves the model as it was
    return bundle


@pytest.fixture
def bundle(low_limit: None, template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "street.taidpt"))


def redirect(graph: Path, location: str) -> None:
    """Edit a graph by hand so that its weights are said to lie elsewhere."""
    model = onnx.load(graph, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    graph.write_bytes(model.SerializeToString())


def test_a_bundle_with_weights_beside_its_graph_is_whole(bundle: Path) -> None:
    loaded = Bundle.load(bundle)
    assert {"model.onnx", DATA} <= set(loaded.manifest.files)
    assert loaded.verify_hashes() == ()
    assert (bundle / "model.onnx").stat().st_size < (bundle / DATA).stat().st_size
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    with Tagger.load(bundle) as tagger:
        assert len(tagger.tag(frame).tags) == 3
    encoder = encoder_of(loaded)
    assert "taidpt.LocalSimilarity" not in count_ops(encoder)
    onnx.checker.check_model(encoder, full_check=True)

    changed = bytearray((bundle / DATA).read_bytes())
    changed[-1] ^= 1
    (bundle / DATA).write_bytes(changed)
    with pytest.raises(BundleError, match=r"model.onnx.data: its content was changed"):
        Bundle.load(bundle)


def test_weights_beside_the_graph_are_those_inside_it(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, quiet = make_clip(VIT), SilentProgress()
    options, inside = ExportOptions(), tmp_path / "inside.taidpt"
    write_bundle(some_prompts(clip), clip, inside, options, quiet)
    monkeypatch.setattr(graph_io, "_LARGEST_FILE", 20_000)
    beside = Path(shutil.copytree(template, tmp_path / "beside.taidpt"))
    assert not (inside / DATA).exists()
    graphs = [load_graph(bundle / "model.onnx") for bundle in (inside, beside)]
    assert count_ops(graphs[0]) == count_ops(graphs[1])
    assert _weights(graphs[0]) == _weights(graphs[1])
    assert [node.name for node in graphs[0].graph.node] == [
        node.name for node in graphs[1].graph.node
    ]

    verify(beside, VerifyOptions()).require()
    for bundle in (inside, beside):
        add_precision(bundle, EngineRequest(EngineOptions("fp16")), quiet)
    assert (beside / "model.fp16.onnx.data").is_file()
    frame = np.random.default_rng(0).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    for name in ("model.onnx", "model.fp16.onnx"):
        outputs = [graph_io.run_graph(path / name, {"frames": frame}) for path in (inside, beside)]
        for key, values in outputs[0].items():
            np.testing.assert_allclose(outputs[1][key], values, rtol=0, atol=1e-6)


def _weights(model: onnx.ModelProto) -> dict[str, bytes]:
    return {
        tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer
    }


@pytest.mark.parametrize("location", ["../x", "/etc/passwd", "link"])
def test_hostile_names_are_refused_by_every_reader(bundle: Path, location: str) -> None:
    (bundle / "link").symlink_to("/etc/passwd")
    graph = bundle / "model.onnx"
    redirect(graph, location)
    with pytest.raises(BundleError, match="do not use this bundle"):
        load_graph(graph)
    with pytest.raises(BundleError, match="do not use this bundle"):
        graph_io.open_session(graph)


def test_writing_replaces_a_link_and_leaves_its_target_alone(
    low_limit: None, tmp_path: Path
) -> None:
    target = tmp_path / "outside"
    target.write_bytes(b"precious")
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in ("model.onnx", DATA):
        (folder / name).symlink_to(target)
    model = onnx.ModelProto()
    model.CopyFrom(small_graph("vit"))
    save_graph(model, folder / "model.onnx")
    assert target.read_bytes() == b"precious"
    assert not (folder / DATA).is_symlink()
    written = load_graph(folder / "model.onnx")
    for tensor, original in zip(
        written.graph.initializer, small_graph("vit").graph.initializer, strict=True
    ):
        assert numpy_helper.to_array(tensor).tobytes() == numpy_helper.to_array(original).tobytes()


@pytest.mark.tensorrt
def test_an_engine_is_built_from_it_and_named_after_both_files(
    low_limit: None, tmp_path: Path
) -> None:
    there = importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", there, "pip install tensorrt_rtx")
    graph = tmp_path / "model.onnx"
    save_graph(append_head(to_half(small_graph("vit"), "fp16"), small_bank(), Scoring(40.0)), graph)
    assert (tmp_path / DATA).is_file()
    options = EngineOptions("fp16", (1, 1, 2), 1 << 30, "tensorrt-rtx", "sm_86")
    built = build_engine(graph, options, tmp_path / "log")
    assert len(built.data) > 100_000
    before = engine_key(graph, options, "tensorrt-rtx", "1")["graph_sha256"]
    (tmp_path / DATA).write_bytes((tmp_path / DATA).read_bytes()[:-4] + b"abcd")
    assert engine_key(graph, options, "tensorrt-rtx", "1")["graph_sha256"] != before
    redirect(graph, "../x")
    with pytest.raises(BundleError, match="do not use this bundle"):
        build_engine(graph, options, tmp_path / "log")

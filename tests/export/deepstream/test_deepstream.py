"""The folder for DeepStream's nvinfer: its graph in ONNX Runtime, its files, and bad input."""

from __future__ import annotations

import configparser
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from taidpt.export.deepstream.job import DeepStreamOptions, write_deepstream
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.input_spec import NV12
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.support import require

SMALL = DeepStreamOptions(frame_hw=(36, 64), batch=4)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "street.taidpt", TinySpec(thresholds=(1.0, -0.5)))


def config(folder: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((folder / "config_infer.txt").read_text("utf-8"))
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def test_graph_gives_the_taggers_scores(bundle: Path, tmp_path: Path) -> None:
    """From frames as nvinfer's preprocessing writes them: planes of floats, scale 1, no offsets."""
    write_deepstream(bundle, tmp_path / "ds", dataclasses.replace(SMALL, features=True))
    frames = np.random.default_rng(0).integers(0, 256, (3, 36, 64, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "ds" / "model.onnx"))
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"frames": planes}), strict=True))
    with Tagger.load(bundle, device="cpu") as tagger:
        expected = tagger.tag_batch(frames)
    # grey levels may differ by one where Pillow's rounding and the graph's fall apart
    np.testing.assert_allclose(found["scores"], expected.scores, atol=0.01)
    np.testing.assert_allclose(
        found["patch_features"], expected.outputs["patch_features"], atol=0.01
    )
    settings = config(tmp_path / "ds")
    assert settings["infer-dims"] == "3;36;64"
    assert settings["output-blob-names"].split(";") == names
    assert settings["output-tensor-meta"] == "1"


def test_files_name_each_other(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    write_deepstream(bundle, folder, SMALL)
    settings = config(folder)
    names = {path.name for path in folder.iterdir()}
    assert {settings["onnx-file"], settings["labelfile-path"], "tags.tsv"} <= names
    built = settings["custom-lib-path"].removeprefix("lib").removesuffix(".so")
    source = (folder / f"{built}.cpp").read_text("utf-8")
    assert f"bool {settings['parse-classifier-func-name']}(" in source
    assert settings["model-engine-file"] == "model.onnx_b4_gpu0_fp32.engine"
    graph = onnx.load(folder / "model.onnx").graph
    assert [output.name for output in graph.output] == ["scores"]
    assert not {node.domain for node in graph.node} - {""}
    lines = (folder / "tags.tsv").read_text("utf-8").splitlines()
    manifest = Bundle.load(bundle).manifest
    assert [line.split("\t") for line in lines] == [
        [tag.name, repr(tag.threshold.on)] for tag in manifest.tags
    ]
    assert (folder / "labels.txt").read_text("utf-8") == ";".join(manifest.names) + "\n"


def test_maps_are_written_and_those_from_texts_are_not(bundle: Path, tmp_path: Path) -> None:
    loaded = Bundle.load(bundle)
    row = {"scores": [-1.0, 0.25], "probabilities": [0.125, 1.0]}
    tags = list(loaded.manifest.tags)
    for index, source in ((0, "calibrated"), (1, "from texts")):
        threshold = dataclasses.replace(tags[index].threshold, source=source)
        tags[index] = dataclasses.replace(tags[index], threshold=threshold, probability=row)
    loaded.with_manifest(dataclasses.replace(loaded.manifest, tags=tuple(tags)))
    write_deepstream(bundle, tmp_path / "ds", SMALL)
    lines = (tmp_path / "ds" / "tags.tsv").read_text("utf-8").splitlines()
    assert lines[:2] == ["cat\t1.0\t-1.0\t0.125\t0.25\t1.0", "dog\t-0.5"]


def test_bundle_with_its_own_resize_keeps_its_frames(bundle: Path, tmp_path: Path) -> None:
    from taidpt.export.graph.from_bundle import load_graph
    from taidpt.export.graph.onnx_files import save_graph
    from taidpt.export.graph.resize import FrameInput, prepend_resize
    from taidpt.runtime.bundle.bundle import MODEL_FILE, BundleWriter

    loaded = Bundle.load(bundle)
    spec = FrameInput(48, 80).spec(loaded.manifest.input)
    model = prepend_resize(load_graph(loaded.file(MODEL_FILE)), spec)
    with BundleWriter(bundle, base=bundle) as writer:
        save_graph(model, writer.path(MODEL_FILE))
        writer.commit(dataclasses.replace(loaded.manifest, input=spec))
    write_deepstream(bundle, tmp_path / "ds", SMALL)
    assert config(tmp_path / "ds")["infer-dims"] == "3;48;80"


@pytest.mark.tensorrt
def test_tensorrt_builds_an_engine_of_the_graph(bundle: Path, tmp_path: Path) -> None:
    """TensorRT-RTX, whose builder needs no GPU; nvinfer builds with TensorRT on the device."""
    installed = importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", installed, "pip install tensorrt_rtx==1.7.1.116")
    from taidpt.export.engines.builder import build_engine
    from taidpt.export.precision.request import EngineOptions

    write_deepstream(bundle, tmp_path / "ds", SMALL)
    options = EngineOptions("fp32", (1, 2, 4), 1 << 30, "tensorrt-rtx", "sm_86")
    assert build_engine(tmp_path / "ds" / "model.onnx", options, tmp_path / "log").data


def test_bundles_that_nvinfer_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in (("bank", TinySpec(bank_as="input")), ("top", TinySpec(top_k=2))):
        path = tiny_bundle(tmp_path / f"{name}.taidpt", spec)
        with pytest.raises(InputError, match="without --swappable-bank and --top-k"):
            write_deepstream(path, tmp_path / "ds", SMALL)
    path = tiny_bundle(tmp_path / "tabs.taidpt", TinySpec(names=("a\tb", "c")))
    with pytest.raises(InputError, match=r"the tag 'a\\tb': a name in tags\.tsv holds no tabs"):
        write_deepstream(path, tmp_path / "ds", SMALL)
    plain = Bundle.load(tiny_bundle(tmp_path / "plain.taidpt"))
    changed = dataclasses.replace(plain.manifest.input, format=NV12)
    manifest = dataclasses.replace(plain.manifest, input=changed)
    nv12 = dataclasses.replace(plain, manifest=manifest)
    monkeypatch.setattr("taidpt.export.deepstream.job.fp32_bundle", lambda path: nv12)
    with pytest.raises(InputError, match="takes NV12 frames, and nvinfer gives RGB"):
        write_deepstream(path, tmp_path / "ds", SMALL)
    assert not (tmp_path / "ds").exists()


def test_nothing_is_left_half_written(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out" / "ds"
    write_deepstream(bundle, folder, SMALL)
    with pytest.raises(InputError, match="ds: is there already; remove it, or give another -o"):
        write_deepstream(bundle, folder, SMALL)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(InputError, match="other: cannot be written: No space left on device"):
        write_deepstream(bundle, folder.with_name("other"), SMALL)
    assert [path.name for path in folder.parent.iterdir()] == ["ds"]
    (bundle / "model.onnx").write_bytes(b"x" * (bundle / "model.onnx").stat().st_size)
    with pytest.raises(BundleError):
        write_deepstream(bundle, folder.with_name("third"), SMALL)

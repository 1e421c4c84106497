"""Precisions and engines from a bundle alone: the graph, the exit code, and a real builder."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from taidpt.export.cli.steps import check_cpu_options, parse_batch, parse_size
from taidpt.export.engines.builder import _configure, build_engine, engine_key, find_flavour
from taidpt.export.engines.in_bundle import add_engine
from taidpt.export.engines.jetpack5 import jetpack5_graph
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.export.graph.from_bundle import encoder_of, load_graph
from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import run_graph, save_graph
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.export.precision import gate
from taidpt.export.precision.cpu_bundle import write_cpu_bundle
from taidpt.export.precision.gate import gate_for
from taidpt.export.precision.half import to_half
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import add_precision
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, Tagger
from taidpt.runtime.backends.engine_files import fingerprint
from taidpt.runtime.bundle.manifest import Scoring
from taidpt.runtime.errors import BundleError, EngineNotBuiltError, InputError, ParityError
from tests.export.conftest import FAMILIES, count_ops, small_bank, small_graph
from tests.export.test_exporter import some_prompts
from tests.support import require
from tests.taidpt.tiny import VIT, make_clip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT's bundle; tests work on copies."""
    clip = make_clip(VIT)
    out = tmp_path_factory.mktemp("bundles") / "street.taidpt"
    return write_bundle(some_prompts(clip), clip, out, ExportOptions(), SilentProgress()).path


@pytest.fixture
def bundle(template: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(template, tmp_path / "street.taidpt"))


def require_rtx() -> None:
    there = importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", there, "pip install tensorrt_rtx")


def test_encoder_comes_out_as_it_went_in(bundle: Path) -> None:
    encoder = encoder_of(Bundle.load(bundle))
    ops = count_ops(encoder)
    assert "taidpt.LocalSimilarity" not in ops
    assert not encoder.functions
    whole = count_ops(onnx.load(bundle / "model.onnx"))
    assert all(whole[name] >= count for name, count in ops.items())
    onnx.checker.check_model(encoder, full_check=True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_what_must_stay_fp32(precision: str) -> None:
    graph = append_head(to_half(small_graph("vit"), precision), small_bank(), Scoring(40.0))
    onnx.checker.check_model(graph, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(graph)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    low = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    for node in graph.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "ReduceL2"):
            assert types[node.output[0]] == onnx.TensorProto.FLOAT, node.name
    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    assert all(types[node.output[0]] == low for node in products)
    banks = [t for t in graph.graph.initializer if t.name.endswith("_embeddings")]
    assert {tensor.data_type for tensor in banks} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_node_function_and_namespace_survive_every_recipe(precision: str) -> None:
    encoder = small_graph("vit")
    low = encoder if precision == "fp32" else to_half(encoder, precision)
    graph = append_head(low, small_bank(), Scoring(40.0))
    (node,) = [node for node in graph.graph.node if node.domain == "taidpt"]
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    assert attributes["plugin_namespace"] == b"taidpt"
    assert [function.name for function in graph.functions] == ["LocalSimilarity"]
    constants = [n for n in graph.functions[0].node if n.op_type == "Constant"]
    plain = [item.name for n in constants for item in n.attribute if not item.ref_attr_name]
    assert set(plain) == {"value"}


def test_bf16_of_convolutions_is_refused() -> None:
    with pytest.raises(InputError, match="use fp16"):
        to_half(small_graph("resnet"), "bf16")


def test_fp16_graph_is_added_and_checked(bundle: Path) -> None:
    before = (bundle / "model.onnx").read_bytes()
    made = add_precision(bundle, EngineRequest(EngineOptions("fp16")), SilentProgress()).bundle
    assert {"model.fp16.onnx", "parity.fp16.json", "model.onnx"} <= set(made.manifest.files)
    assert made.verify_hashes() == ()
    assert (bundle / "model.onnx").read_bytes() == before
    report = json.loads((bundle / "parity.fp16.json").read_text())
    assert report["passed"] is True
    assert report["outputs"]["patch_features"]["minimum"] > 0.999
    again = add_precision(bundle, EngineRequest(EngineOptions("fp16")), SilentProgress())
    assert not again.fresh
    assert again.bundle.identity == made.identity


def test_what_cannot_run_here_says_so(bundle: Path) -> None:
    add_precision(bundle, EngineRequest(EngineOptions("bf16")), SilentProgress())
    report = json.loads((bundle / "parity.bf16.json").read_text())
    assert report["notes"]["verified"] is False
    assert report["notes"]["reason"].startswith("not run here")


def test_int8_by_the_users_pictures(bundle: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    request = EngineRequest(EngineOptions("int8"), calibrate=frames, force=True)
    with pytest.raises(InputError, match="--frames"):
        add_precision(bundle, EngineRequest(EngineOptions("int8")), SilentProgress())
    for index, picture in enumerate(generated_pictures(96)):
        if index == 3:
            with pytest.raises(InputError, match="at least 8 frames, got 3"):
                add_precision(bundle, request, SilentProgress())
        Image.fromarray(picture.pixels).save(frames / f"{index}.png")
    made = add_precision(bundle, request, SilentProgress()).bundle
    ops = count_ops(onnx.load(bundle / "model.int8.onnx"))
    assert ops["QuantizeLinear"] > 5
    assert ops["taidpt.LocalSimilarity"] == 1
    report = json.loads((bundle / "parity.int8.json").read_text())
    assert report["bound"] == 0.98
    assert report["outputs"]["patch_features"]["mean"] > 0.95
    assert report["notes"]["calibration_frames"] == 12
    assert len(report["notes"]["layers_in_fp32"]) <= report["notes"]["layers"] / 2
    assert made.verify_hashes() == ()


def test_engine_without_tensorrt_is_exit_code_3_after_everything_portable(bundle: Path) -> None:
    if find_flavour(EngineOptions(flavour="tensorrt")) is not None:
        pytest.skip("TensorRT is installed here")
    command = [sys.executable, "-m", "taidpt", "export", str(bundle), "-q", "--engine", "fp16"]
    options = ["--batches", "1,4,16", "--workspace", "2G", "--flavour", "tensorrt"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "tensorrt is not installed here" in line
    expected = f"taidpt-export {bundle} --engine fp16 --batches 1,4,16 --workspace 2147483648"
    assert expected in line
    assert "model.fp16.onnx" in Bundle.load(bundle).manifest.files


def test_engine_step_loads_no_torch(bundle: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from taidpt.export.precision.request import EngineOptions\n"
        "from taidpt.export.precision.variant import add_precision\n"
        "from taidpt.export.precision.request import EngineRequest\n"
        "from taidpt.progress import SilentProgress\n"
        f"path = Path({str(bundle)!r})\n"
        "add_precision(path, EngineRequest(EngineOptions('fp16')), SilentProgress())\n"
        "print(*sorted({'torch', 'open_clip', 'onnxscript'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_rtx_builds_every_family(family: str, precision: str, tmp_path: Path) -> None:
    require_rtx()
    if (family, precision) == ("resnet", "bf16"):
        pytest.skip("convolutions have no bf16 before opset 22")
    encoder = small_graph(family)
    low = encoder if precision == "fp32" else to_half(encoder, precision)
    for bank_as in ("constant", "input"):
        graph = tmp_path / "model.onnx"
        save_graph(append_head(low, small_bank(), Scoring(40.0), bank_as), graph)
        options = EngineOptions(precision, (1, 2, 4), 1 << 30, "tensorrt-rtx", "sm_86")
        built = build_engine(graph, options, tmp_path / "log")
        assert len(built.data) > 100_000
        assert built.key["architecture"] == "sm_86"


@pytest.mark.tensorrt
def test_an_rtx_engine_takes_no_memory_of_its_own() -> None:
    """Which TensorRT-RTX asks for where CUDA graphs are recorded."""
    require_rtx()
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    _configure(trt, builder, config, EngineOptions("fp32", workspace=1 << 30))
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


@pytest.mark.tensorrt
def test_engine_lands_in_the_bundle_and_in_this_machines_record(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_rtx()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    options = EngineOptions("fp16", (1, 1, 2), 1 << 30, "tensorrt-rtx", "sm_86")
    first = add_engine(bundle, EngineRequest(options), SilentProgress())
    assert first.fresh
    from taidpt.runtime.backends.trusted_engines import is_trusted

    assert is_trusted(first.path.read_bytes())
    assert Bundle.load(bundle).verify_hashes() == ()
    again = add_engine(bundle, EngineRequest(options), SilentProgress())
    assert not again.fresh
    other = EngineOptions("fp16", (1, 1, 4), 1 << 30, "tensorrt-rtx", "sm_86")
    second = add_engine(bundle, EngineRequest(other), SilentProgress())
    assert second.fresh
    assert not first.path.exists()


@pytest.mark.tensorrt
def test_builders_errors_are_one_line(tmp_path: Path) -> None:
    require_rtx()
    broken = tmp_path / "broken.onnx"
    options = EngineOptions("fp32", flavour="tensorrt-rtx", target="sm_86")
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="not a readable graph"):
        build_engine(broken, options, tmp_path / "log")
    unknown = onnx.ModelProto()
    unknown.CopyFrom(small_graph("vit"))
    unknown.graph.node[0].op_type = "NoSuchOperator"
    broken.write_bytes(unknown.SerializeToString())
    with pytest.raises(EngineNotBuiltError, match=r"cannot read the graph: .*NoSuchOperator"):
        build_engine(broken, options, tmp_path / "log")
    save_graph(append_head(small_graph("vit"), small_bank(), Scoring(40.0)), broken)
    wrong = EngineOptions("fp32", flavour="tensorrt-rtx", target="sm_12345")
    with pytest.raises(InputError, match="expected one of sm120, sm121, sm75, sm80"):
        build_engine(broken, wrong, tmp_path / "log")


def test_fingerprint_follows_everything(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"one")
    base = EngineOptions("fp16", target="sm_87")
    keys = [
        engine_key(graph, base, "tensorrt", "10.3.0"),
        engine_key(graph, base, "tensorrt", "10.4.0"),
        engine_key(graph, base, "tensorrt-rtx", "10.3.0"),
        engine_key(graph, EngineOptions("fp32", target="sm_87"), "tensorrt", "10.3.0"),
        engine_key(graph, EngineOptions("fp16", target="sm_86"), "tensorrt", "10.3.0"),
        engine_key(graph, EngineOptions("fp16", (1, 1, 2), target="sm_87"), "tensorrt", "10.3.0"),
    ]
    graph.write_bytes(b"two")
    keys.append(engine_key(graph, base, "tensorrt", "10.3.0"))
    assert len({fingerprint(key) for key in keys}) == len(keys)


def test_hostile_external_data_is_refused(tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(small_graph("vit"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="do not use this bundle"):
        load_graph(path)


def test_corrupt_graph_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(os.urandom(1000))
    with pytest.raises(BundleError, match="not a readable graph"):
        load_graph(path)


def test_sizes_and_batches() -> None:
    assert parse_batch("1,4,16") == (1, 4, 16)
    assert parse_batch("4") == (4, 4, 4)
    assert parse_size("2G") == 2 << 30
    assert parse_size("512M") == 512 << 20
    for text in ("", "1,2", "a", "1,2,3,4"):
        with pytest.raises(InputError, match="expected least,usual,largest"):
            parse_batch(text)
    for text in ("", "two", "0", "-1G"):
        with pytest.raises(InputError, match="expected a size such as"):
            parse_size(text)
    with pytest.raises(InputError, match="in rising order"):
        EngineOptions(batch=(4, 2, 8))


def test_pictures_are_for_the_gate_of_a_precision(bundle: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    command = [sys.executable, "-m", "taidpt", "export", str(bundle), "--images", str(pictures)]
    for more, message in (
        (["--engine", "fp32"], "--images is for the export of prompts"),
        (["-o", str(tmp_path / "x.taidpt"), "--swappable-bank"], "--images is for the export of p"),
        (["--engine", "fp16"], f"{pictures}: holds no pictures"),
    ):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr


def test_the_users_pictures_join_the_gate(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that agrees on the stored pictures and not on the user's is refused."""
    for picture in generated_pictures(90)[:3]:
        Image.fromarray(picture.pixels).save(tmp_path / f"{picture.name.split('/')[1]}.png")
    request = EngineRequest(EngineOptions("fp16"), images=tmp_path)
    found = Bundle.load(bundle)
    plain = gate_for(found, EngineRequest(EngineOptions("fp16"))).report(bundle / "model.onnx")
    report = gate_for(found, request).report(bundle / "model.onnx")
    assert report.passed
    assert report.pictures[: len(plain.pictures)] == plain.pictures
    assert len(report.pictures) == len(plain.pictures) + 3
    assert report.pictures[-1].startswith("own/")
    assert "and its own graph on 3 pictures" in report.reference
    assert report.head("scores").minimum > 0.9999
    run = gate.graph_outputs

    def worse_on_own(graph: object, *others: object, **options: object) -> object:
        outputs = run(graph, *others, **options)  # type: ignore[arg-type]
        if graph != found.file("model.onnx"):
            outputs["scores"][-1] *= -1
        return outputs

    monkeypatch.setattr(gate, "graph_outputs", worse_on_own)
    with pytest.raises(ParityError, match=r"own/.*nothing was written"):
        add_precision(bundle, request, SilentProgress())
    assert "model.fp16.onnx" not in Bundle.load(bundle).manifest.files
    monkeypatch.undo()
    assert add_precision(bundle, request, SilentProgress()).parity["notes"]["images"] == 3
    assert not add_precision(bundle, request, SilentProgress()).fresh


def test_labels_given_later_are_measured(bundle: Path, tmp_path: Path) -> None:
    pictures, labels = tmp_path / "pictures", tmp_path / "labels.json"
    pictures.mkdir()
    names = Bundle.load(bundle).names
    told: dict[str, list[str]] = {}
    for index, picture in enumerate(generated_pictures(64)):
        Image.fromarray(picture.pixels).save(pictures / f"{index}.png")
        told[f"{index}.png"] = [names[index % len(names)]]
    labels.write_text(json.dumps(told), "utf-8")
    plain = EngineRequest(EngineOptions("fp16"))
    labelled = EngineRequest(EngineOptions("fp16"), images=pictures, labels=labels)
    assert "map_drop" not in add_precision(bundle, plain, SilentProgress()).parity["notes"]
    later = add_precision(bundle, labelled, SilentProgress())
    assert "map_drop" in later.parity["notes"]
    assert not add_precision(bundle, labelled, SilentProgress()).fresh
    assert not add_precision(bundle, plain, SilentProgress()).fresh


def test_rows_of_the_bank_are_fp32_whatever_the_precision(bundle: Path) -> None:
    add_precision(bundle, EngineRequest(EngineOptions("fp16")), SilentProgress())
    model = onnx.load(bundle / "model.fp16.onnx")
    rows = next(t for t in model.graph.initializer if t.name == "local_embeddings")
    stored = onnx.numpy_helper.to_array(rows)
    np.testing.assert_array_equal(stored, Bundle.load(bundle).bank.local_embeddings)


@pytest.mark.parametrize("opset", [17, 18])
def test_jetpack5_graph_is_plain_and_equal(family: str, opset: int) -> None:
    graph = append_head(small_graph(family, opset), small_bank(), Scoring(40.0))
    plain = jetpack5_graph(graph)
    assert not plain.functions
    assert [(entry.domain, entry.version) for entry in plain.opset_import] == [("", 17)]
    assert {"LayerNormalization", "taidpt.LocalSimilarity"}.isdisjoint(count_ops(plain))
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    expected, got = run_graph(graph, {"frames": frames}), run_graph(plain, {"frames": frames})
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, atol=1e-4, err_msg=name)


def test_jetpack5_command_prints_the_line(bundle: Path) -> None:
    command = [sys.executable, "-m", "taidpt", "export", str(bundle), "-q", "--jetpack5"]
    done = subprocess.run(
        [*command, "--batches", "1,2,4"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "trtexec --onnx=model.jetpack5.onnx --fp16 --minShapes=frames:1x48x48x3" in done.stdout
    assert "model.jetpack5.onnx" in Bundle.load(bundle).manifest.files


def test_int8_for_the_cpu_is_a_bundle_of_its_own(bundle: Path, tmp_path: Path) -> None:
    frames, out = tmp_path / "frames", tmp_path / "fast.taidpt"
    frames.mkdir()
    for index, picture in enumerate(generated_pictures(96)):
        Image.fromarray(picture.pixels).save(frames / f"{index}.png")
    options = EngineOptions("int8", flavour="cpu")
    request = EngineRequest(options, calibrate=frames, force=True)
    report = write_cpu_bundle(bundle, out, request, SilentProgress())
    assert report.notes["calibration_frames"] == 12
    made = Bundle.load(out)
    assert made.verify_hashes() == ()
    assert made.manifest.provenance["precision"] == "int8"
    assert made.names == Bundle.load(bundle).names
    assert count_ops(onnx.load(out / "model.onnx"))["QuantizeLinear"] > 5
    with Tagger.load(out, device="cpu") as low, Tagger.load(bundle, device="cpu") as full:
        picture = generated_pictures(96)[0].pixels
        difference = low(picture).scores - full(picture).scores
        assert np.abs(difference).max() < 0.5
    with pytest.raises(InputError, match="--flavour cpu is for int8"):
        EngineOptions("fp16", flavour="cpu")
    for source, output, told in (
        (bundle, None, "give -o NAME.taidpt"),
        (bundle, bundle, "give another name with -o"),
        (Path("a.safetensors"), out, "run taidpt-export a.safetensors first"),
    ):
        with pytest.raises(InputError, match=told):
            check_cpu_options(source, output)

"""verify, bank, doctor and report: as commands, with their exit codes, on a real bundle."""

from __future__ import annotations

import getpass
import hashlib
import json
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from scripts import boards_page
from taidpt.cli import cli
from taidpt.clip.model import load_clip
from taidpt.export.checks import board_report
from taidpt.export.checks.doctor import examine, examine_bundle
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, BundleWriter
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import BundleError, InputError, ParityError
from tests.export.test_exporter import some_prompts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clip = load_clip("toyworld", "embedded")
    out = tmp_path_factory.mktemp("bundles") / "street.taidpt"
    return write_bundle(some_prompts(clip), clip, out, ExportOptions(), SilentProgress()).path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for picture in generated_pictures(120)[:5]:
        Image.fromarray(picture.pixels).save(folder / f"{picture.name.split('/')[1]}.png")
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "taidpt", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_process(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)])


def with_swapped_colours(bundle: Path, target: Path) -> Path:
    """A bundle that is whole by its hashes, and wrong: red and blue change places."""
    model = onnx.load(bundle / "model.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("encoder/scale", "encoder/shift"):
        values = onnx.numpy_helper.to_array(tensors[name])
        swapped = np.ascontiguousarray(values[:, ::-1])
        if name == "encoder/scale":
            swapped = swapped * np.float32(-1)
        tensors[name].CopyFrom(onnx.numpy_helper.from_array(swapped, name))
    with BundleWriter(target, base=bundle) as writer:
        writer.write("model.onnx", model.SerializeToString())
        writer.commit(Bundle.load(bundle).manifest)
    return target


def test_against_the_stored_answers(bundle: Path) -> None:
    report = verify(bundle, VerifyOptions())
    report.require()
    (candidate,) = report.candidates
    assert candidate.report is not None
    assert candidate.report.head("patch_features").minimum > 0.999
    assert candidate.top5 == 1.0
    assert candidate.on > 0.98
    assert report.truth == "PyTorch (stored in the bundle)"


def test_against_pytorch_on_own_pictures_with_labels(
    bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.json"
    names = sorted(path.name for path in pictures.iterdir())
    labels.write_text(
        json.dumps({name: ["dog"] if i % 2 else ["umbrella"] for i, name in enumerate(names)})
    )
    report = verify(bundle, VerifyOptions(pictures, labels))
    report.require()
    assert report.truth == "PyTorch"
    assert report.pictures == 5
    assert report.candidates[0].map_drop == pytest.approx(0.0, abs=0.01)
    labels.write_text(json.dumps({names[0]: ["dog"]}))
    with pytest.raises(InputError, match="no labels for"):
        verify(bundle, VerifyOptions(pictures, labels))
    labels.write_text("[]")
    with pytest.raises(InputError, match="labels should be JSON like"):
        verify(bundle, VerifyOptions(pictures, labels))


def test_a_wrong_graph_fails(bundle: Path, tmp_path: Path) -> None:
    wrong = with_swapped_colours(bundle, tmp_path / "wrong.taidpt")
    with pytest.raises(ParityError, match=r"model\.onnx on onnxruntime .* disagrees"):
        verify(wrong, VerifyOptions()).require()
    done = run("verify", wrong, "--json", tmp_path / "report.json")
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False


def test_a_changed_file_is_named(bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(bundle, tmp_path / "copy.taidpt"))
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        verify(copy, VerifyOptions())


def test_a_graph_that_cannot_run_has_failed(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.taidpt"
    shutil.copytree(bundle, copy)
    graph = onnx.load(copy / "model.onnx")
    graph.graph.node[0].input[0] = "nothing"
    damaged = graph.SerializeToString()
    (copy / "model.onnx").write_bytes(damaged)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    digest = hashlib.sha256(damaged).hexdigest()
    manifest["files"]["model.onnx"] = {"size": len(damaged), "sha256": digest}
    (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    done = run("verify", copy)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "ONNX Runtime cannot run it" in done.stdout
    assert "Traceback" not in done.stderr


def test_verify_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from taidpt.export.checks.verify import VerifyOptions, verify\n"
        f"verify(Path({str(bundle)!r}), VerifyOptions()).require()\n"
        "print(*sorted({'torch', 'open_clip', 'onnx'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_verify_command(bundle: Path) -> None:
    done = run("verify", bundle)
    assert done.returncode == 0, done.stderr
    title, row = done.stdout.splitlines()[2:4]
    assert title.split()[:5] == ["global", "patch", "scores", "bound", "scores"]
    assert row.split()[0] == "model.onnx"
    assert row.endswith("  ok")
    missing = run("verify", bundle.with_name("none.taidpt"))
    assert missing.returncode == 2
    assert len(missing.stderr.strip().splitlines()) == 1


def test_bank_command(bundle: Path, tmp_path: Path) -> None:
    clip = load_clip("toyworld", "embedded")
    prompts = tmp_path / "street.safetensors"
    some_prompts(clip).save(prompts)
    done = in_process("bank", "make", prompts, "-o", tmp_path / "street.bank")
    assert done.exit_code == 0, done.output
    bank = ClassBank.load(tmp_path / "street.bank")
    stored = Bundle.load(bundle).bank
    np.testing.assert_allclose(bank.local_embeddings, stored.local_embeddings, atol=1e-5)
    assert bank.names == stored.names
    assert len(bank.thresholds) == len(bank.names)
    assert bank.metadata["model"]["weights_sha256"] == clip.weights_sha256
    again = in_process("bank", "make", bundle, "-o", tmp_path / "copy.bank")
    assert again.exit_code == 0
    assert ClassBank.load(tmp_path / "copy.bank").names == stored.names
    refused = in_process("bank", "make", prompts, "-o", tmp_path / "no" / "a.bank")
    assert isinstance(refused.exception, InputError)


def test_doctor(bundle: Path) -> None:
    findings = examine()
    assert {"Python", "GPU", "onnxruntime", "providers", "TensorRT"} <= {f.what for f in findings}
    assert all(f.mend for f in findings if f.good is False)
    kinds = {f.what: f for f in examine_bundle(bundle)}
    assert kinds["bundle"].good is True
    assert kinds["engine"].mend.startswith("taidpt-export ")
    assert examine_bundle(bundle.with_name("none"))[0].good is False
    done = run("doctor", bundle)
    assert done.returncode == 0
    assert "ok Python" in done.stdout
    parsed = json.loads(run("doctor", "--json", "-").stdout)
    assert {item["what"] for item in parsed} >= {"Python", "GPU"}


def test_a_board_report_is_whole_and_names_no_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_report, "BATCHES", (1,))
    arguments = ["report", str(bundle), "-o", str(tmp_path / "board.json"), "--seconds", "0.05"]
    assert CliRunner().invoke(cli, [*arguments, "--device", "cpu"]).exit_code == 0
    text = (tmp_path / "board.json").read_text("utf-8")
    found = json.loads(text)
    assert not {socket.gethostname(), str(bundle.parent), getpass.getuser()} & set(text.split('"'))
    assert str(bundle.parent) not in text
    assert found["verify"]["passed"]
    assert found["bench"]["rows"][0]["tagger_ms"] > 0
    if find_spec("mlperf_loadgen") is not None:
        assert found["loadgen"]["SingleStream"]["p90_ms"] > 0
        assert found["loadgen"]["Offline"]["frames_per_s"] > 0
    row = boards_page.table([found]).splitlines()[-1]
    assert row.startswith(f"| {found['board']} | cpu: ")
    assert " held | " in row


def test_a_board_says_its_name_and_its_zones_their_temperatures(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\x00")
    name = board_report.board_name(tmp_path / "model", tmp_path / "nothing")
    assert name == "NVIDIA Jetson Orin Nano Developer Kit"
    for number, degrees in enumerate(("47125", "")):
        zone = tmp_path / f"thermal_zone{number}"
        zone.mkdir()
        (zone / "type").write_text(f"zone-{number}\n")
        (zone / "temp").write_text(degrees)
    assert board_report.temperatures(tmp_path) == {"zone-0": 47.125}

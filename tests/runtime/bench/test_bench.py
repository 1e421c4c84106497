"""`taidpt bench`: measurements, report, and invalid arguments."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from taidpt.bench.cut_encoder import FEATURES, cut_encoder
from taidpt.runtime.bench.baseline import ENCODER, open_baseline
from taidpt.runtime.bench.bench import SyntheticSource, bench_lines, run_bench
from taidpt.runtime.commands import bench
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle

SPEC_FRAMES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def test_a_sweep_has_a_row_for_each_batch_size(tagger: Tagger) -> None:
    baseline = open_baseline(tagger)
    rows = run_bench(tagger, baseline, [1, 3], seconds=0.05)
    assert [row.batch for row in rows] == [1, 3]
    for row in rows:
        assert row.bare_ms > 0
        assert row.ratio == row.tagger_ms / row.bare_ms
        assert row.by_size_ms["1080p"] > row.tagger_ms
        assert row.stream_fps > 0
    lines = bench_lines(tagger, baseline, rows)
    assert lines[0].endswith("5 tags")
    assert lines[1].startswith("device cpu (ONNX Runtime ")
    assert lines[2] == "bare is the encoder, which is this graph cut at its features"
    start = lines.index("stages of the stream at batch 3")
    assert [line.split()[0] for line in lines[start + 2 :]] == list(rows[-1].stages_ms)
    beside = bench_lines(tagger, baseline, rows, {1: 2 * rows[0].tagger_ms, 3: rows[1].tagger_ms})
    assert beside[start].endswith(" ms a frame, 2.00 times the tagger's")
    assert "open_clip eager: not compared, x" in bench_lines(tagger, baseline, rows, "x")
    with pytest.raises(InputError, match="at least 1"):
        run_bench(tagger, baseline, [0])


def test_the_baseline_is_the_encoder(tagger: Tagger) -> None:
    baseline, frames = open_baseline(tagger), SPEC_FRAMES
    found = baseline.run(frames)
    whole = tagger.backend.run(frames, tagger.bank_inputs)
    assert isinstance(found, list)
    assert len(found) == len(FEATURES) < len(whole)
    for name, values in zip(FEATURES, found, strict=True):
        np.testing.assert_allclose(values, whole[name], atol=1e-6)


def test_bank_inputs_are_cut_from_the_baseline(tmp_path: Path) -> None:
    path = tiny_bundle(tmp_path / "open.taidpt", TinySpec(bank_as="input"))
    with Tagger.load(path, device="cpu", threads=1) as tagger:
        baseline = open_baseline(tagger)
        assert baseline.what == ENCODER
        assert isinstance(baseline.run(SPEC_FRAMES), list)


def test_external_weights_stay_external(tmp_path: Path) -> None:
    whole = onnx.load(tiny_bundle(tmp_path / "t.taidpt") / "model.onnx")
    graph, out = tmp_path / "model.onnx", tmp_path / "cut" / "encoder.onnx"
    settings = {"save_as_external_data": True, "size_threshold": 0, "convert_attribute": False}
    onnx.save(whole, graph, location="model.onnx.data", **settings)
    out.parent.mkdir()
    cut_encoder(graph, "frames", out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(FEATURES)


@pytest.mark.parametrize("why", ["onnx is not installed", "cannot be cut: "])
def test_the_report_names_the_whole_graph_as_baseline(
    tagger: Tagger, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why.startswith("onnx"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    else:
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
    baseline = open_baseline(tagger)
    assert baseline.what.startswith("the whole graph, not its encoder alone (")
    assert why in baseline.what
    assert isinstance(baseline.run(SPEC_FRAMES), dict)


def test_the_command_prints_and_writes(bundle_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    options = ["--batches", "2", "--seconds", "0.05", "--device", "cpu", "--json", str(target)]
    done = CliRunner().invoke(bench, [str(bundle_path), *options])
    assert done.exit_code == 0, done.output
    assert "ratio" in done.output
    assert f"bare is {ENCODER}" in done.output
    (eager,) = [line for line in done.output.splitlines() if line.startswith("open_clip eager")]
    assert "not compared" in eager
    assert "tiny" in eager  # no model of open_clip's
    report = json.loads(target.read_text("utf-8"))
    assert report["model"]["name"] == "tiny"
    assert report["rows"][0]["batch"] == 2
    assert report["bare"] == ENCODER
    wrong = CliRunner().invoke(bench, [str(bundle_path), "--batches", "two"])
    assert wrong.exit_code == 2
    assert "whole numbers" in wrong.output


def test_the_synthetic_source_counts_and_times() -> None:
    frames = list(SyntheticSource((20, 30, 3), 9, fps=10))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(9)])
    assert frames[0].image.shape == (20, 30, 3)


def test_open_clip_is_measured_in_another_process() -> None:
    """The toy world's model; the tiny bundle's is none of open_clip's."""
    command = [
        sys.executable,
        "-m",
        "taidpt.bench.eager_encoder",
        "toyworld",
        "1,2",
        "cpu",
        "1",
        "0.01",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == ["1", "2"]
    assert min(found.values()) > 0

"""`taidpt bench`: it measures, says what it measured, and takes no nonsense."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from taidpt.runtime.bench import SyntheticSource, bench_lines, measure_eager, run_bench
from taidpt.runtime.commands import bench
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger import Tagger


def test_a_sweep_has_a_row_a_batch(tagger: Tagger) -> None:
    rows = run_bench(tagger, [1, 3], seconds=0.05)
    assert [row.batch for row in rows] == [1, 3]
    for row in rows:
        assert row.bare_ms > 0
        assert row.ratio == row.tagger_ms / row.bare_ms
        assert row.by_size_ms["1080p"] > row.tagger_ms
        assert row.stream_fps > 0
    lines = bench_lines(tagger, rows)
    assert lines[0].endswith("5 tags")
    assert lines[1].startswith("device cpu: onnxruntime")
    start = lines.index("stages of the stream at batch 3")
    assert [line.split()[0] for line in lines[start + 2 :]] == list(rows[-1].stages_ms)
    beside = bench_lines(tagger, rows, {1: 2 * rows[0].tagger_ms, 3: rows[1].tagger_ms})
    assert beside[start].endswith(" ms a frame, 2.00 times the tagger's")
    assert "open_clip eager: not compared, x" in bench_lines(tagger, rows, "x")
    with pytest.raises(InputError, match="at least 1"):
        run_bench(tagger, [0])


def test_the_command_prints_and_writes(bundle_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "bench.json"
    options = ["--batches", "2", "--seconds", "0.05", "--device", "cpu", "--json", str(target)]
    done = CliRunner().invoke(bench, [str(bundle_path), *options])
    assert done.exit_code == 0, done.output
    assert "ratio" in done.output
    report = json.loads(target.read_text("utf-8"))
    assert report["model"]["name"] == "tiny"
    assert report["rows"][0]["batch"] == 2
    wrong = CliRunner().invoke(bench, [str(bundle_path), "--batches", "two"])
    assert wrong.exit_code == 2
    assert "whole numbers" in wrong.output


def test_the_synthetic_source_counts_and_times() -> None:
    frames = list(SyntheticSource((20, 30, 3), 9, fps=10))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(9)])
    assert frames[0].image.shape == (20, 30, 3)


def test_open_clip_is_measured_in_a_process_of_its_own() -> None:
    """The toy world's model; the tiny bundle's is none of open_clip's."""
    command = [sys.executable, "-m", "taidpt.eager_bench", "toyworld", "1,2", "cpu", "1", "0.01"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == ["1", "2"]
    assert min(found.values()) > 0


def test_a_model_that_open_clip_does_not_know_is_not_compared(tagger: Tagger) -> None:
    reason = measure_eager(tagger, [1], 1, 0.01)
    assert isinstance(reason, str)
    assert "tiny" in reason

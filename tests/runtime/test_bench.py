"""`taidpt bench`: it measures, says what it measured, and takes no nonsense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from taidpt.runtime.bench import SyntheticSource, bench_lines, run_bench
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
    assert len(lines) == 6
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
    frames = list(SyntheticSource(20, 30, 9, fps=10))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(9)])
    assert frames[0].image.shape == (20, 30, 3)

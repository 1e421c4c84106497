"""The GPU suite's frame, which needs no GPU: parts that die, hang or fail, and the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_suite, gpu_table
from tests.support import REPOSITORY

# Stands for gpu_parts: PART names on the command line are done.
CHILD = """
import json, os, sys, time
names = ["first", "dies", "second", "hangs", "fails", "last"]
for name in names:
    if name in sys.argv[2:]:
        continue
    print("BEGIN", name, flush=True)
    if name == "dies":
        os.abort()
    if name == "hangs":
        time.sleep(60)
    result = {"failed": ["wrong"]} if name == "fails" else {"cases": 2, "run": 2, "worst": 1e-7}
    if name == "last":
        result = {"not_run": "no time was left"}
    print("END", json.dumps({"name": name, "kind": "test", "seconds": 1.0, "result": result}))
    sys.stdout.flush()
"""

ROW = {
    "name": "forward B64 P256 C20000 D1024",
    "ms": {"ours": {"p50": 1.5}, "limit": {"p50": 1.0}},
    "of_limit": 0.667,
    "memory_bytes": {"ours": 2**20},
    "targets": [
        {"what": "of_limit >= 0.65", "value": 0.667, "met": True},
        {"what": "times_compiled >= 1.2", "value": None, "met": False},
    ],
}
MACHINE = {
    "device": "NVIDIA Test",
    "torch": "2",
    "triton": "3",
    "commit": "abc",
    "date": "2026-01-02T03:04:05",
}


def test_a_part_that_dies_or_hangs_takes_no_other_with_it(tmp_path: Path) -> None:
    record = gpu_suite.Record(dict(MACHINE), tmp_path / "gpu.json")

    def command(seconds: float, done: list[str]) -> list[str]:
        return [sys.executable, "-c", CHILD, str(seconds), *done]

    gpu_suite.run_parts(command, 120.0, record, part_limit_s=5.0)
    stored: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())
    tests = stored["tests"]
    assert list(tests) == ["first", "dies", "second", "hangs", "fails"]
    assert tests["dies"]["failed"] == ["killed by signal 6"]
    assert tests["hangs"]["failed"] == ["killed by signal 9"]
    assert tests["fails"]["failed"] == ["wrong"]
    assert "failed" not in tests["second"]
    assert stored["not_run"] == [{"name": "last", "why": "no time was left"}]
    assert record.failed()


def test_a_suite_that_cannot_begin_says_so(tmp_path: Path) -> None:
    record = gpu_suite.Record(dict(MACHINE), tmp_path / "gpu.json")
    gpu_suite.run_parts(lambda *_: [sys.executable, "-c", "raise SystemExit(3)"], 30.0, record)
    found = record.content["tests"]["start"]["failed"]
    assert found == ["no part began: the process ended with 3"]


def test_it_needs_pytorch_and_triton_alone() -> None:
    """A bare machine has no package index: nothing of ours that is not in the checkout."""
    blocked = ("click", "open_clip", "safetensors", "onnx", "onnxruntime", "av", "PIL", "tqdm")
    program = (
        "import sys\n"
        f"for name in {(*blocked, 'pytest')}: sys.modules[name] = None\n"
        "import benchmarks.gpu_suite, benchmarks.gpu_table, benchmarks.gpu_parts\n"
        "import benchmarks.backward_parts\n"
        "import taidpt.kernels.local_similarity.torch_op\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_backward_parts_say_where_there_is_no_gpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "benchmarks/backward_parts.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("backward parts: not run (")


def test_the_documents_hold_the_newest_runs() -> None:
    table = gpu_table.markdown(gpu_table.newest())
    documents = {path.name: path.read_text("utf-8") for path in gpu_table.DOCUMENTS}
    for name, document in documents.items():
        current = gpu_table.replaced(document, table)
        assert current == document, f"{name}: python benchmarks/gpu_table.py --write"
    assert any(gpu_table.BEGIN in document for document in documents.values())


def test_the_table_tells_what_was_measured_and_what_was_missed(tmp_path: Path) -> None:
    assert "not run" in gpu_table.markdown(gpu_table.newest(tmp_path))
    older = {"machine": {**MACHINE, "date": "2025-01-01"}, "tests": {}, "rows": [], "not_run": []}
    newer = {"machine": MACHINE, "tests": {}, "rows": [ROW], "not_run": []}
    for name, record in (("gpu-a.json", newer), ("gpu-b.json", older)):
        (tmp_path / name).write_text(json.dumps(record))
    text = gpu_table.markdown(gpu_table.newest(tmp_path))
    assert text.count("NVIDIA Test") == 1
    assert "| 1.500 | 1.000 | 67% | not run | not run | 1.0 | – |" in text
    assert "missed: times_compiled >= 1.2" in text


def test_every_row_of_the_issue_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names only; nothing is run."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    from benchmarks import gpu_parts

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    names = [part.name for part in gpu_parts.parts(lambda: 1000.0)]
    assert len(set(names)) == len(names)
    for classes in (1000, 4585, 20000):
        for batch in (1, 8, 64):
            for what in ("forward", "backward"):
                assert f"{what} B{batch} P196 C{classes} D1024" in names
    assert {"forward B64 P256 C20000 D1024", "tuning B512 P20 C5000 D1024"} <= set(names)
    assert {"latency B1 P49 C80 D1024", "latency B1 P196 C80 D1024"} <= set(names)
    assert {"cross product", "gradients", "tile candidates", "pytest"} <= set(names)

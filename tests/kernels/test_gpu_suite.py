"""The benchmark programs without a GPU: parts that die, hang or fail, their names, the table."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harness, kernels
from tests.support import REPOSITORY, require

# Stands for a program's process: names on the command line are done.
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


def test_crashed_or_hanging_part_leaves_the_others(tmp_path: Path) -> None:
    record = harness.Record(dict(MACHINE), tmp_path / "gpu.json")

    def command(seconds: float, done: list[str]) -> list[str]:
        return [sys.executable, "-c", CHILD, str(seconds), *done]

    harness.run_parts(command, 120.0, record, part_limit_s=5.0)
    stored: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())
    tests = stored["tests"]
    assert list(tests) == ["first", "dies", "second", "hangs", "fails"]
    assert tests["dies"]["failed"] == ["killed by signal 6"]
    assert tests["hangs"]["failed"] == ["killed by signal 9"]
    assert tests["fails"]["failed"] == ["wrong"]
    assert "failed" not in tests["second"]
    assert stored["not_run"] == [{"name": "last", "why": "no time was left"}]
    assert record.failed()


def test_process_that_cannot_start_is_a_failure(tmp_path: Path) -> None:
    record = harness.Record(dict(MACHINE), tmp_path / "gpu.json")
    harness.run_parts(lambda *_: [sys.executable, "-c", "raise SystemExit(3)"], 30.0, record)
    found = record.content["tests"]["start"]["failed"]
    assert found == ["no part began: the process ended with 3"]


def test_kernels_and_tuning_need_pytorch_and_triton_alone() -> None:
    """A lent machine has no package index: nothing but these two and the checkout."""
    blocked = ("click", "open_clip", "safetensors", "onnx", "onnxruntime", "av", "PIL", "tqdm")
    program = (
        "import sys\n"
        f"for name in {(*blocked, 'pytest', 'numpy')}: sys.modules[name] = None\n"
        "import benchmarks.harness, benchmarks.kernels, benchmarks.tuning\n"
        "import taidpt.kernels.local_similarity.torch_op\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


PARTS = {
    "kernels": {"gradients", "cross product", "plugin, driven", "latency B1 P49 C80 D1024"},
    "tuning": {"B64 P20 C100 D512 as it is"},
    "engines": {"whole bundle", "banks by size", "swaps of a bank"},
    "stream": {"parity with the CPU", "rates"},
}


@pytest.mark.parametrize("program", PARTS)
def test_programs_list_their_parts(program: str) -> None:
    """Without a GPU, a TensorRT or a bundle."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{program}.py", "--list"],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) >= PARTS[program]


@pytest.mark.parametrize("program", PARTS)
def test_programs_have_a_help_text(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = REPOSITORY / "benchmarks" / f"{program}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(path.parent)  # as Python does for a program
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0
    assert "--only" in capsys.readouterr().out


def test_a_program_runs_its_part_on_a_cpu(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    command = [sys.executable, "benchmarks/kernels.py", "--only", "gradients"]
    done = subprocess.run(
        [*command, "--output", str(record)],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads(record.read_text("utf-8"))
    assert list(stored) == ["machine", "tests", "rows", "not_run"]
    assert stored["tests"]["gradients"]["run"] == stored["tests"]["gradients"]["cases"] == 18
    assert stored["tests"]["gradients"]["failed"] == []


def test_the_documents_hold_the_newest_runs() -> None:
    table = kernels.markdown(kernels.newest())
    documents = {path.name: path.read_text("utf-8") for path in kernels.DOCUMENTS}
    for name, document in documents.items():
        current = kernels.replaced(document, table)
        assert current == document, f"{name}: python benchmarks/kernels.py --write"
    assert any(kernels.BEGIN in document for document in documents.values())


def test_the_document_holds_the_newest_limits() -> None:
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")
    from benchmarks import kernel_limits

    document = kernel_limits.DOCUMENT.read_text("utf-8")
    assert kernel_limits.BEGIN in document
    current = kernel_limits.replaced(document)
    assert current == document, "python benchmarks/kernel_limits.py --write"


def test_the_table_shows_what_was_measured_and_what_was_missed(tmp_path: Path) -> None:
    assert "not run" in kernels.markdown(kernels.newest(tmp_path))
    older = {"machine": {**MACHINE, "date": "2025-01-01"}, "tests": {}, "rows": [], "not_run": []}
    newer = {"machine": MACHINE, "tests": {}, "rows": [ROW], "not_run": []}
    for name, record in (("gpu-a.json", newer), ("gpu-b.json", older)):
        (tmp_path / name).write_text(json.dumps(record))
    text = kernels.markdown(kernels.newest(tmp_path))
    assert text.count("NVIDIA Test") == 1
    assert "| 1.500 | 1.000 | 67% | not run | not run | not run | 1.0 | – |" in text
    assert "missed: times_compiled >= 1.2" in text


def test_every_row_of_the_table_is_planned_on_a_gpu() -> None:
    """Names only; nothing is run."""
    program = (
        "import torch; torch.cuda.is_available = lambda: True\n"
        "import argparse; from benchmarks import kernels\n"
        "options = argparse.Namespace(only='', plugin=None, driver=None)\n"
        "print(*(part.name for part in kernels.parts(options)), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    names = done.stdout.splitlines()
    assert len(set(names)) == len(names)
    for record in kernels.newest():
        rows = {row["name"] for row in record["rows"]}
        assert rows
        assert rows <= set(names)
    assert {"cross product", "gradients", "compile, opcheck, graph", "pytest"} <= set(names)

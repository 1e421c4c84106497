"""Exported graphs in the oldest ONNX Runtime that a JetPack 6 user has (1.23), and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import run_graph, save_graph
from taidpt.runtime.bundle.manifest import Scoring
from tests.export.conftest import FAMILIES, small_bank, small_graph
from tests.support import REPOSITORY, require

CODE = """
import sys
import numpy, onnxruntime
assert onnxruntime.__version__.startswith("1.23."), onnxruntime.__version__
options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
values = session.run(names, {"frames": numpy.load(sys.argv[2])})
numpy.savez(sys.argv[3], **dict(zip(names, values)))
"""


def old_runtime() -> tuple[list[str], dict[str, str]]:
    """An interpreter with onnxruntime 1.23, or this one with build/ort123 on its path."""
    interpreter = os.environ.get("TAIDPT_ORT123_PYTHON", "")
    folder = REPOSITORY / "build" / "ort123"
    require(
        "onnxruntime-1.23",
        bool(interpreter) or (folder / "onnxruntime").is_dir(),
        "pip install --no-deps --target build/ort123 onnxruntime==1.23.2",
    )
    if interpreter:
        return [interpreter], dict(os.environ)
    return [sys.executable], {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("family", FAMILIES)
def test_graph_gives_the_same_in_the_old_one(family: str, opset: int, tmp_path: Path) -> None:
    command, environment = old_runtime()
    opset = min(opset, 18) if family == "resnet" else opset
    graph = append_head(small_graph(family, opset), small_bank(), Scoring(40.0, 0.5, "center"))
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    save_graph(graph, tmp_path / "model.onnx")
    np.save(tmp_path / "frames.npy", frames)
    files = [str(tmp_path / name) for name in ("model.onnx", "frames.npy", "out.npz")]
    subprocess.run([*command, "-c", CODE, *files], env=environment, check=True)
    old, new = np.load(tmp_path / "out.npz"), run_graph(graph, {"frames": frames})
    for name, values in new.items():
        np.testing.assert_allclose(old[name], values, atol=2e-5, err_msg=name)

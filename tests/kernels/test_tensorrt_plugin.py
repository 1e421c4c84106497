"""The TensorRT plugin in TensorRT-RTX's builder, which needs no GPU.

An exported model's node names the plugin's namespace; the parser must take the plugin rather than
the model-local function, and the builder must make an engine. Each case is a process of its own,
since a builder without its library's unversioned name ends the process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.native_build import build_native
from tests.kernels.test_onnx import head_model
from tests.support import require

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

BUILD = Path(__file__).with_name("tensorrt_rtx_build.py")
PYTHON = os.environ.get("TAIDPT_RTX_PYTHON", sys.executable)


def plugin() -> Path:
    """The plugin, or skip: TensorRT-RTX, TensorRT's headers and a compiler are wanted."""
    found = sys.executable != PYTHON or importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", found, "pip install tensorrt_rtx==1.7.1.116")
    headers = os.environ.get("TENSORRT_INCLUDE_DIR", "")
    present = bool(headers) and (Path(headers) / "NvInfer.h").is_file()
    require("tensorrt-headers", present, "set TENSORRT_INCLUDE_DIR to the folder of NvInfer.h")
    return build_native() / "libtaidpt_trt_plugin.so"


def build(library: Path, model: Path, *options: str) -> str:
    command = [PYTHON, str(BUILD), str(library), str(model), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("dtype", "masked", "valued"),
    [
        ("float32", False, False),
        ("float16", False, False),
        ("float32", False, True),
        ("float32", True, False),
        ("float32", True, True),
    ],
)
def test_plugin_is_taken_and_an_engine_built(
    tmp_path: Path, dtype: str, masked: bool, valued: bool
) -> None:
    library = plugin()
    from tests.kernels.cases import Case, make_inputs

    inputs = make_inputs(Case(2, 49, 81, 64, getattr(torch, dtype), masked, valued))
    model = head_model(inputs, bank_dtype=inputs.patches.dtype)
    path = tmp_path / "head.onnx"
    onnx.save(model, path)
    output = build(library, path)
    assert "layers: PLUGIN_V3" in output
    assert "engine bytes:" in output


@pytest.mark.tensorrt
def test_the_same_model_without_the_plugin_takes_the_function(tmp_path: Path) -> None:
    plugin()
    from tests.kernels.cases import Case, make_inputs

    path = tmp_path / "head.onnx"
    onnx.save(head_model(make_inputs(Case(2, 49, 81, 64))), path)
    output = build(Path("none"), path)
    assert "PLUGIN_V3" not in output
    assert "MATRIX_MULTIPLY" in output

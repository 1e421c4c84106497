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

from taidpt.kernels.aot_compile import PARAMETERS
from tests.kernels.native_build import build_native, build_stub_driver
from tests.kernels.test_competing import model_of
from tests.kernels.test_native_launch import sizes_of
from tests.kernels.test_onnx import head_model
from tests.support import require

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

BUILD = Path(__file__).with_name("tensorrt_rtx_build.py")
PYTHON = os.environ.get("TAIDPT_RTX_PYTHON", sys.executable)


def plugin() -> Path:
    """The plugin, or skip where TensorRT-RTX, TensorRT's headers or a compiler are missing."""
    installed = sys.executable != PYTHON or importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", installed, "pip install tensorrt_rtx==1.7.1.116")
    return plugin_library()


def plugin_library() -> Path:
    """The plugin, or skip where TensorRT's headers or a compiler are missing."""
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
@pytest.mark.parametrize("masked", [False, True])
def test_plugin_of_the_second_read_out_is_taken(tmp_path: Path, masked: bool) -> None:
    library = plugin()
    from tests.kernels.cases import Case, make_inputs

    path = tmp_path / "head.onnx"
    inputs = make_inputs(Case(2, 49, 81, 64, torch.float32, masked))
    onnx.save(model_of(inputs, 18), path)
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


DRIVE = """
import ctypes, sys
driver, stub = ctypes.CDLL(sys.argv[1]), ctypes.CDLL("libcuda.so.1")
library, name, competes = sys.argv[2].encode(), sys.argv[3].encode(), "Competing" in sys.argv[3]
driver.driven_open.restype = ctypes.c_void_p
driver.driven_open.argtypes = [
    *[ctypes.c_char_p] * 2, ctypes.c_float, *[ctypes.c_int32] * 3, ctypes.POINTER(ctypes.c_int32)]
driver.driven_enqueue.argtypes = [ctypes.c_void_p] * 4
driver.driven_close.argtypes = driver.driven_workspace.argtypes = [ctypes.c_void_p]
driver.driven_workspace.restype = ctypes.c_uint64
driver.driven_error.restype = stub.stub_calls.restype = ctypes.c_char_p
sizes = (ctypes.c_int32 * 4)(2, 49, 81, 512)
for half in (0, 1):
    for valued in (0,) if competes else (0, 1):
        for masked in (0, 1):
            handle = driver.driven_open(library, name, 40.0, half, valued, masked, sizes)
            assert handle, driver.driven_error().decode()
            names = [0x10000, 0x20000]
            if not competes:
                names += [0x30000 if valued else 0x20000] * (valued or masked)
            names += [0x40000] * masked
            places = (ctypes.c_void_p * len(names))(*names)
            stub.stub_clear()
            status = driver.driven_enqueue(handle, places, 0x50000, 0x7)
            assert status == 0, driver.driven_error().decode()
            launches = [x for x in stub.stub_calls().decode().splitlines() if "launch" in x]
            print(half, valued, masked, driver.driven_workspace(handle), *launches, sep="; ")
            driver.driven_close(handle)
"""


def build_driver(folder: Path) -> Path:
    """The library that drives the plugin as TensorRT does, without TensorRT."""
    headers = os.environ["TENSORRT_INCLUDE_DIR"]
    cuda = os.environ.get("CUDA_INCLUDE_DIR", "/usr/local/cuda/include")
    source, target = Path(__file__).with_name("plugin_driver.cpp"), folder / "libplugin_driver.so"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra"]
    command += ["-isystem", headers, "-isystem", cuda, str(source), "-o", str(target), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("name", "kinds", "workspace", "cases"),
    [
        ("LocalSimilarity", ("general",), 0, 8),
        ("CompetingSimilarity", ("totals", "best"), 2 * 4 * 2 * 49, 4),
    ],
)
def test_plugin_launches_its_kernels_when_it_is_driven_without_tensorrt(
    tmp_path: Path, name: str, kinds: tuple[str, ...], workspace: int, cases: int
) -> None:
    """On a driver that computes nothing: life cycle, inputs and the launches, not values."""
    library = plugin_library()
    arguments = [str(build_driver(tmp_path)), str(library), name]
    done = subprocess.run(
        [sys.executable, "-c", DRIVE, *arguments],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(build_stub_driver()),
            "TAIDPT_STUB_SIZES": sizes_of(*kinds),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split("; ") for line in done.stdout.splitlines()]
    assert len(lines) == cases
    for _, _, masked, size, *launches in lines:
        assert int(size) == workspace
        assert len(launches) == len(kinds), done.stdout
        numbers = [int(part) for part in launches[-1].split()[1:]][9:]
        found = dict(zip(PARAMETERS[kinds[-1]], numbers, strict=False))
        assert (found["x_ptr"], found["bank_ptr"], found["out_ptr"]) == (0x10000, 0x20000, 0x50000)
        assert (found["mask_ptr"], found["use_mask"]) == ((0x40000, 1) if masked == "1" else (0, 0))

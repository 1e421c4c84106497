"""The builder's code against TensorRT's own Python bindings, up to the point where libraries are.

PyPI has the bindings and not the libraries. Stubs of these give no builder, as the real ones do on
a machine without a GPU; every class, flag and signature that is named here is TensorRT's own.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require

VERSIONS = ("10.3.0", "11.1.0.106")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def install(version: str, folder: Path) -> dict[str, str]:
    """The bindings as Debian's package lays them out, and their environment."""
    source = REPOSITORY / "build" / f"tensorrt-{version}" / "tensorrt_bindings"
    how = f"pip install --no-deps --target build/tensorrt-{version} tensorrt-cu12-bindings"
    require("tensorrt-bindings", source.is_dir(), f"{how}=={version}")
    compiler = shutil.which("cc") or shutil.which("gcc")
    require("c++", compiler is not None, "no C compiler")
    shutil.copytree(source, folder / "tensorrt")
    code = folder / "stub.c"
    code.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    major = version.split(".", maxsplit=1)[0]
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        name = f"lib{library}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", str(code)]
        subprocess.run([str(compiler), *options, "-o", str(folder / name)], check=True)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)]),
    }


CODE = """
import sys
from pathlib import Path
from taidpt.export.engines.builder import _import, _make_logger, _make_monitor, build_engine
from taidpt.export.precision.request import EngineOptions
from taidpt.export.engines.network import network_flags
from taidpt.progress import SilentProgress
from taidpt.runtime.errors import EngineNotBuiltError

trt, folder = _import("tensorrt"), Path(sys.argv[1])
config, builder = trt.IBuilderConfig, trt.Builder
for owner, names in {
    config: "set_memory_pool_limit set_flag hardware_compatibility_level default_device_type "
    "DLA_core progress_monitor add_optimization_profile create_timing_cache set_timing_cache",
    builder: "create_network create_builder_config create_optimization_profile "
    "build_serialized_network num_DLA_cores",
    trt.OnnxParser: "parse parse_from_file num_errors get_error",
    trt.INetworkDefinition: "num_inputs get_input num_layers get_layer",
    trt.ILayer: "type",
    trt.IPluginRegistry: "load_library",
    trt.LayerType: "PLUGIN_V3",
    trt.IOptimizationProfile: "set_shape",
    trt.ITimingCache: "serialize",
    trt.BuilderFlag: "VERSION_COMPATIBLE GPU_FALLBACK",
    trt.HardwareCompatibilityLevel: "AMPERE_PLUS",
    trt.MemoryPoolType: "WORKSPACE",
    trt.DeviceType: "DLA GPU",
    trt.ILogger.Severity: "ERROR INTERNAL_ERROR",
}.items():
    missing = [name for name in names.split() if not hasattr(owner, name)]
    assert not missing, (owner, missing)
assert callable(trt.get_plugin_registry)
flags = network_flags(trt)
print(trt.__version__, flags)
monitor = _make_monitor(trt, SilentProgress())
monitor.phase_start("build", None, 3)
assert monitor.step_complete("build", 0)
monitor.phase_finish("build")
logger = _make_logger(trt, folder / "log")
logger.log(trt.ILogger.Severity.ERROR, "first\\n  fault")
logger.log(trt.ILogger.Severity.ERROR, "second")
assert logger.first_error == "first fault"
logger.close()
graph = folder / "model.onnx"
graph.write_bytes(b"\\x08\\x0a")  # a model of IR version 10, and nothing else
try:
    build_engine(graph, EngineOptions("fp16", workspace=1 << 20), folder / "log")
except EngineNotBuiltError as error:
    print(error)
"""


@pytest.mark.tensorrt
@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_tensorrts_own(version: str, tmp_path: Path) -> None:
    environment = install(version, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, error = done.stdout.splitlines()
    strongly_typed = 0 if version.startswith("11") else 2
    assert first == f"{version} {strongly_typed}"
    assert error == (
        f"TensorRT {version} has no builder here: it needs a GPU and its driver here; "
        "`taidpt doctor` shows what is missing"
    )


@pytest.mark.tensorrt
def test_every_name_is_tensorrt_rtxs_own() -> None:
    there = importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", there, "pip install tensorrt_rtx")
    import tensorrt_rtx as trt

    for owner, names in {
        trt.ICudaEngine: "create_runtime_config create_execution_context device_memory_size_v2 "
        "get_tensor_profile_shape",
        trt.IExecutionContext: "set_device_memory set_input_shape get_tensor_shape "
        "set_tensor_address execute_async_v3",
        trt.IRuntimeConfig: "set_execution_context_allocation_strategy create_runtime_cache "
        "set_runtime_cache dynamic_shapes_kernel_specialization_strategy",
        trt.DynamicShapesKernelSpecializationStrategy: "EAGER",
        trt.ExecutionContextAllocationStrategy: "USER_MANAGED",
        trt.BuilderFlag: "REQUIRE_USER_ALLOCATION",
    }.items():
        missing = [name for name in names.split() if not hasattr(owner, name)]
        assert not missing, (owner, missing)
    assert trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy.fset is not None

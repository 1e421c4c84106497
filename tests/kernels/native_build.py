"""Build the C library once a test run, with kernels for one architecture where triton is there."""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import torch

from taidpt.kernels.local_similarity.tiles import SHARED_LIMITS
from tests.kernels.native_interface import declared
from tests.support import REPOSITORY, require

__all__ = [
    "aot_folder",
    "architectures",
    "build_native",
    "build_stub_driver",
    "built_library",
    "load_library",
    "run_cmake",
]


@cache
def _workspace() -> Path:
    """A folder of the test run, shared by its processes."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return Path(mkdtemp(prefix="taidpt-native-"))
    folder = Path(gettempdir(), f"taidpt-native-{run}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the workspace, made by the first process that needs it; others wait."""
    folder, done = _workspace() / name, _workspace() / f"{name}.done"
    with (_workspace() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


@cache
def aot_folder() -> Path:
    """Output of the ahead-of-time compiler for sm_87 (and the GPU here, if there is one)."""
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")
    return _made_once("aot", _compile_ahead)


def _compile_ahead(folder: Path) -> None:
    command = [sys.executable, "-m", "taidpt.kernels.aot", "-o", str(folder), "--arch"]
    command += architectures()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr


def architectures() -> list[str]:
    """sm_87, and that of the GPU here, where there is one that the table knows."""
    found = {"sm_87"}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        if 10 * major + minor in SHARED_LIMITS:
            found.add(f"sm_{major}{minor}")
    return sorted(found)


@cache
def build_native() -> Path:
    """Folder of libtaidpt.so, and of the plugin where TENSORRT_INCLUDE_DIR names its headers."""
    return _made_once("build", _build)


@cache
def built_library() -> Path:
    """The library that ctest tests (TAIDPT_NATIVE_BUILD), else one built here."""
    folder = os.environ.get("TAIDPT_NATIVE_BUILD")
    return (Path(folder) if folder else build_native()) / "libtaidpt.so"


def _build(folder: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    require("c++", compiler is not None, "no C++ compiler: apt install g++")
    require("cmake", shutil.which("cmake") is not None, "no cmake: apt install cmake")
    options = ["-DTAIDPT_WERROR=ON", f"-DPython3_EXECUTABLE={sys.executable}"]
    if importlib.util.find_spec("triton") is None:
        options.append("-DTAIDPT_GPU_KERNELS=OFF")
    else:
        options.append(f"-DTAIDPT_AOT_DIR={aot_folder()}")
    if headers := os.environ.get("TENSORRT_INCLUDE_DIR"):
        options.append(f"-DTENSORRT_INCLUDE_DIR={headers}")
        if cuda := os.environ.get("CUDA_INCLUDE_DIR"):
            options.append(f"-DCUDA_INCLUDE_DIR={cuda}")
    run_cmake("-S", str(REPOSITORY), "-B", str(folder), *options)
    run_cmake("--build", str(folder), "--parallel", "2")


def run_cmake(*arguments: str) -> str:
    """Output of cmake; its errors fail the test."""
    done = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@cache
def load_library() -> ctypes.CDLL:
    """The C library with its signatures."""
    return declared(ctypes.CDLL(str(built_library())))


@cache
def build_stub_driver(*, old: bool = False) -> Path:
    """Folder of a libcuda.so.1 that launches nothing; an old one lacks a function."""
    return _made_once("old-driver" if old else "driver", partial(_build_driver, old))


def _build_driver(old: bool, folder: Path) -> None:
    source = Path(__file__).with_name("stub_driver.cpp")
    folder.mkdir()
    flags = ["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wl,-soname,libcuda.so.1"]
    flags += ["-DTAIDPT_STUB_OLD"] if old else []
    target = folder / "libcuda.so.1"
    command = [os.environ.get("CXX", "c++"), *flags, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr

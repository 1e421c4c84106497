"""`taidpt doctor`: what this machine has, and for what is missing the command that installs it."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from taidpt.export.engines.builder import free_memory
from taidpt.runtime.backends.engine_files import FLAVOURS, EngineFile, Machine, list_engines
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, TaidptError

__all__ = ["Finding", "examine", "examine_bundle", "package_version"]

_JETSON = Path("/etc/nv_tegra_release")
_PATIENCE_S = 10.0
_REINSTALL = "pip install --force-reinstall onnxruntime"
# the number of the fastest mode differs from board to board
_FASTEST = "grep POWER_MODEL /etc/nvpmodel.conf, then sudo nvpmodel -m the ID of MAXN"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: the part that was examined.
        state: its version or state.
        good: True, False for a fault, None for something optional that is missing.
        mend: the command or page that helps.
    """

    what: str
    state: str
    good: bool | None = True
    mend: str = ""


def examine() -> list[Finding]:
    """All findings about this machine. A failed check is a finding, never an exception."""
    checks: tuple[Callable[[], Finding], ...] = (
        _python,
        _jetpack,
        _gpu,
        _driver,
        _onnxruntime,
        _providers,
        lambda: _package("TensorRT", "tensorrt", _install_nvidia("pip install 'taidpt[tensorrt]'")),
        lambda: _package("TensorRT-RTX", "tensorrt_rtx", "pip install 'taidpt[tensorrt-rtx]'"),
        lambda: _package(
            "PyTorch", "torch", "pip install 'taidpt[tune]' (only to tune and export)"
        ),
        lambda: _package(
            "onnx", "onnx", "pip install onnx onnx-ir (only to change a graph's precision)"
        ),
        _decoder,
        _memory,
        _power,
    )
    return [check() for check in checks]


def examine_bundle(path: Path) -> list[Finding]:
    """The state of a bundle and its engines."""
    try:
        bundle = Bundle.load(path)
        changed = bundle.verify_hashes()
    except TaidptError as error:
        return [Finding("bundle", str(error), False)]
    state = f"{len(bundle.names)} tags, {bundle.manifest.model.name}"
    if changed:
        mend = f"taidpt-export PROMPTS.safetensors -o {path}"
        return [Finding("bundle", f"changed: {', '.join(changed)}", False, mend)]
    return [Finding("bundle", state), *_engines(bundle), *_devices(bundle)]


def _devices(bundle: Bundle) -> list[Finding]:
    """The device that `auto` takes for this bundle, and why it passes over faster ones."""
    from taidpt.runtime.backends.base import BackendOptions
    from taidpt.runtime.backends.choice import open_backend

    try:
        backend, device = open_backend(bundle, BackendOptions())
    except TaidptError as error:
        return [Finding("device auto", str(error), False)]
    backend.close()
    over = [Finding(f"not {name}", why, None) for name, why in device.passed_over.items()]
    return [Finding("device auto", f"{device.name}: {device.backend}"), *over]


def _engines(bundle: Bundle) -> list[Finding]:
    try:
        engines = list_engines(bundle)
    except TaidptError as error:
        return [Finding("engine", str(error), False)]
    if not engines:
        mend = f"taidpt-export {bundle.path} --engine fp16"
        return [Finding("engine", "none", None, mend)]
    return [_engine(bundle, engine) for engine in engines]


def _engine(bundle: Bundle, engine: EngineFile) -> Finding:
    installed = package_version(FLAVOURS[engine.flavour]) or ""
    faults = engine.faults(bundle, Machine(engine.flavour, installed, gpu_architecture()))
    if faults and gpu_architecture() is None:
        return Finding(f"engine {engine.precision}", "not for here: " + "; ".join(faults), None)
    state = "stale: " + "; ".join(faults) if faults else "current"
    again = f"taidpt-export {bundle.path} --engine {engine.precision} --flavour {engine.flavour}"
    mend = again if faults else ""
    return Finding(f"engine {engine.precision}", state, not faults, mend)


def package_version(package: str) -> str | None:
    """The installed version of a package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _package(what: str, package: str, mend: str) -> Finding:
    version = package_version(package)
    return Finding(what, version) if version else Finding(what, "not installed", None, mend)


def _python() -> Finding:
    state = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", state)


def _jetpack() -> Finding:
    if not _JETSON.is_file():
        return Finding("JetPack", "not a Jetson", None)
    return Finding(
        "JetPack", "L4T " + " ".join(_JETSON.read_text("utf-8").split(",")[:2]).strip("# ")
    )


def _install_nvidia(otherwise: str) -> str:
    """On a Jetson, driver, CUDA and TensorRT come from JetPack's packages alone."""
    return "sudo apt install nvidia-jetpack" if _JETSON.is_file() else otherwise


def _install_driver() -> str:
    return _install_nvidia("sudo ubuntu-drivers install && sudo reboot")


def _gpu() -> Finding:
    architecture = gpu_architecture()
    if architecture is None:
        return Finding("GPU", "none found by the driver", None, _install_driver())
    return Finding("GPU", architecture)


def _driver() -> Finding:
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return Finding("CUDA driver", "libcuda.so.1 is not here", None, _install_driver())
    if failed:
        return Finding("CUDA driver", f"error {failed}", False, _install_driver())
    return Finding("CUDA driver", f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")


def _onnxruntime() -> Finding:
    """The two packages overwrite each other's files: the last one wins, or none works."""
    plain, gpu = package_version("onnxruntime"), package_version("onnxruntime-gpu")
    if plain and gpu:
        mend = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
        return Finding("onnxruntime", f"{plain} and -gpu {gpu} over each other", False, mend)
    if not plain and not gpu:
        return Finding("onnxruntime", "not installed", False, "pip install onnxruntime")
    return Finding("onnxruntime", plain or f"-gpu {gpu}")


def _providers() -> Finding:
    try:
        import onnxruntime

        providers = onnxruntime.get_available_providers()
    except Exception as error:  # a broken install fails in many ways
        return Finding("providers", f"onnxruntime does not load: {error}", False, _REINSTALL)
    return Finding(
        "providers", ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    )


def _decoder() -> Finding:
    try:
        import av
    except Exception as error:  # as above
        return Finding("video decoder", f"PyAV does not load: {error}", False, "pip install av")
    hardware = Path("/dev/nvhost-nvdec").exists() or Path("/dev/v4l2-nvdec").exists()
    state = f"PyAV {av.__version__}" + (", Jetson's NVDEC through GStreamer" if hardware else "")
    return Finding("video decoder", state)


def _memory() -> Finding:
    try:
        free = free_memory() / 2**30
    except BackendError as error:
        return Finding("free memory", str(error), None)
    enough = free >= 1.0
    return Finding(
        "free memory", f"{free:.1f} GiB", enough, "" if enough else "close other programs"
    )


def _power() -> Finding:
    if shutil.which("nvpmodel") is None:
        return Finding("power mode", "not a Jetson", None)
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"], capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("power mode", f"nvpmodel does not answer: {error}", None)
    lines = done.stdout.split()
    state = " ".join(lines[-2:]) if lines else "unknown"
    return Finding("power mode", state, True, "" if "MAXN" in state else _FASTEST)

"""Build engines with TensorRT or TensorRT-RTX, and name them by everything they depend on."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taidpt.export.engines.network import network_flags, parse_graph
from taidpt.export.engines.profile import profile_shapes
from taidpt.export.precision.request import EngineOptions
from taidpt.progress import Progress, SilentProgress
from taidpt.runtime.backends.engine_files import FLAVOURS, PLUGIN_KEY, fingerprint
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.backends.plugin_library import load_plugins, plugin_sha256
from taidpt.runtime.bundle.onnx_weights import check_external_data, data_name
from taidpt.runtime.errors import BackendError, EngineNotBuiltError, InputError
from taidpt.runtime.storage.atomic import sha256_of

__all__ = [
    "BuiltEngine",
    "build_engine",
    "builder_flags",
    "engine_key",
    "find_flavour",
    "free_memory",
    "installed_version",
    "require_flavour",
]

_LEAST_VERSION = (10, 3)  # the oldest that builds strongly typed engines of these graphs
_LARGEST_DEFAULT = 4 << 30  # bytes; tactics for these graphs need far less


@dataclass(frozen=True)
class BuiltEngine:
    """A serialised engine, and the key of all that it depends on."""

    data: bytes
    key: Mapping[str, Any]
    timing_cache: bytes = field(default=b"", repr=False)

    @property
    def name(self) -> str:
        """File name without its ending."""
        return f"{self.key['flavour']}-{self.key['precision']}-{fingerprint(self.key)}"


def find_flavour(options: EngineOptions) -> str | None:
    """The installed builder, TensorRT before TensorRT-RTX; None if the wanted one is missing."""
    candidates = tuple(FLAVOURS) if options.flavour == "auto" else (options.flavour,)
    if options.flavour == "auto" and options.target is not None:
        candidates = ("tensorrt-rtx",)  # TensorRT builds for the GPU that it runs on
    for flavour in candidates:
        if importlib.util.find_spec(FLAVOURS[flavour]) is not None:
            return flavour
    return None


def require_flavour(options: EngineOptions) -> str:
    """The builder that is installed.

    Raises:
        EngineNotBuiltError: the wanted one is not installed.
    """
    flavour = find_flavour(options)
    if flavour is None:
        wanted = "TensorRT" if options.flavour == "auto" else options.flavour
        raise EngineNotBuiltError(f"{wanted} is not installed here")
    return flavour


def installed_version(flavour: str) -> str:
    """The version of an installed builder, which is imported for it."""
    return str(_import(flavour).__version__)


def engine_key(graph: Path, options: EngineOptions, flavour: str, version: str) -> dict[str, Any]:
    """All that an engine of this graph depends on, on this machine.

    Raises:
        BackendError: the plugin library that the environment names is not there.
    """
    settings = asdict(options)
    for name in ("flavour", "workspace", "target"):
        settings.pop(name)
    beside = graph.with_name(data_name(graph.name))
    files = (graph, beside) if beside.is_file() else (graph,)
    plugin = plugin_sha256()
    return {
        "schema": 1,
        "flavour": flavour,
        "version": version,
        "architecture": options.target or gpu_architecture() or "unknown",
        "graph_sha256": sha256_of(*files),
        **settings,
        "builder_flags": builder_flags(flavour, options),
        "batch": list(options.batch),
        **({} if plugin is None else {PLUGIN_KEY: plugin}),
    }


def builder_flags(flavour: str, options: EngineOptions) -> dict[str, bool]:
    """Flags of the builder that differ from its defaults: name → on or off."""
    flags: dict[str, bool] = {}
    if flavour == "tensorrt-rtx":
        # the runtime records CUDA graphs, for which an engine must not allocate memory itself
        flags["REQUIRE_USER_ALLOCATION"] = True
        if options.precision == "fp32":
            flags["TF32"] = False  # on by default: it keeps 10 of 23 mantissa bits in products
    if options.version_compatible:
        flags["VERSION_COMPATIBLE"] = True
    if options.dla is not None:
        flags["GPU_FALLBACK"] = True
    return flags


def build_engine(
    graph: Path,
    options: EngineOptions,
    log: Path,
    progress: Progress | None = None,
    timing_cache: bytes = b"",
) -> BuiltEngine:
    """Build an engine from a strongly typed graph.

    Args:
        graph: an ONNX file with its head; input `frames` with a dynamic batch.
        options: of the builder.
        log: the file for the builder's whole log.
        progress: told about the builder's phases.
        timing_cache: of an earlier build.
    Raises:
        EngineNotBuiltError: no builder is here, or it refused; with its first error.
        BackendError: the plugin library that the environment names cannot be used.
    """
    flavour = require_flavour(options)
    _check_flavour(flavour, options)
    trt = _import(flavour)
    logger = _make_logger(trt, log)
    try:
        engine, cache = _build(trt, graph, options, logger, progress, timing_cache)
    finally:
        logger.close()
    key = engine_key(graph, options, flavour, str(trt.__version__))
    return BuiltEngine(engine, key, cache)


def _check_flavour(flavour: str, options: EngineOptions) -> None:
    """TensorRT-RTX accepts some settings of TensorRT and ignores them."""
    if flavour != "tensorrt-rtx":
        return
    for name in ("dla", "version_compatible", "hardware_compatible"):
        if getattr(options, name) not in (None, False):
            option = name.replace("_", "-")
            raise InputError(
                f"--{option} needs TensorRT; the builder found here is TensorRT-RTX (choose "
                "another with --flavour tensorrt)"
            )


def _import(flavour: str) -> Any:
    if flavour == "tensorrt-rtx":
        _link_rtx_library()
    try:
        trt = importlib.import_module(FLAVOURS[flavour])
    except (ImportError, OSError) as error:
        raise EngineNotBuiltError(f"{flavour} is installed and does not load: {error}") from None
    version = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
    if flavour == "tensorrt" and version < _LEAST_VERSION:
        raise EngineNotBuiltError(
            f"TensorRT {trt.__version__} is older than 10.3, the oldest that builds strongly typed "
            "engines here; see docs/export.md for JetPack 5"
        )
    return trt


def _link_rtx_library() -> None:
    """Link the library without its version: the parser aborts the process where that is missing."""
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in map(Path, folders):
        for library in folder.glob("libtensorrt_rtx.so.*"):
            link = folder / "libtensorrt_rtx.so"
            if link.exists():
                return
            try:
                link.symlink_to(library.name)
            except OSError as error:
                raise EngineNotBuiltError(
                    f"TensorRT-RTX needs a link that cannot be made ({error.strerror}): "
                    f"ln -s {library.name} {link}"
                ) from None


def _make_logger(trt: Any, path: Path) -> Any:
    class FileLogger(trt.ILogger):  # type: ignore[misc]  # a class of an untyped package
        """Write all lines to a file, and keep the first error for the user."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.first_error = ""
            self._stream = path.open("w", encoding="utf-8")

        def log(self, severity: Any, message: str) -> None:
            self._stream.write(f"{severity.name}: {message}\n")
            errors = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
            if not self.first_error and severity in errors:
                self.first_error = " ".join(message.split())[:300]

        def close(self) -> None:
            self._stream.close()

    return FileLogger()


def _make_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # a class of an untyped package
        """Show the builder's outermost phases."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outermost = ""

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._outermost = name
                progress.start(f"Building the engine: {name}", max(steps, 1))

        def step_complete(self, name: str, step: int) -> bool:
            if name == self._outermost:
                progress.advance()
            return True

        def phase_finish(self, name: str) -> None:
            return None

    return Monitor()


def _build(
    trt: Any,
    graph: Path,
    options: EngineOptions,
    logger: Any,
    progress: Progress | None,
    timing_cache: bytes,
) -> tuple[bytes, bytes]:
    check_external_data(graph)
    builder = _make_builder(trt, logger)
    plugins = load_plugins(trt)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    parse_graph(trt, parser, network, graph, plugins)
    config = builder.create_builder_config()
    _configure(trt, builder, config, options)
    monitor = _make_monitor(trt, progress or SilentProgress())
    config.progress_monitor = monitor
    config.add_optimization_profile(_profile(builder, network, options))
    # TensorRT-RTX measures no timings while it builds
    timed = trt.__name__ == "tensorrt"
    cache = _use_timing_cache(config, timing_cache) if timed else None
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        reason = logger.first_error or "the builder gave no reason, see its log"
        raise EngineNotBuiltError(f"{graph}: the engine was not built: {reason}")
    return bytes(engine), bytes(cache.serialize()) if cache is not None else b""


def _make_builder(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError:  # pybind's error for a null pointer; the reason may be in the log
        reason = logger.first_error or "it needs a GPU and its driver here"
        raise EngineNotBuiltError(
            f"TensorRT {trt.__version__} has no builder here: {reason}; `taidpt doctor` shows "
            "what is missing"
        ) from None


def _configure(trt: Any, builder: Any, config: Any, options: EngineOptions) -> None:
    workspace = options.workspace or default_workspace()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    flavour = next(name for name, package in FLAVOURS.items() if package == trt.__name__)
    for name, on in builder_flags(flavour, options).items():
        (config.set_flag if on else config.clear_flag)(getattr(trt.BuilderFlag, name))
    if options.hardware_compatible:
        level = trt.HardwareCompatibilityLevel
        config.hardware_compatibility_level = level.AMPERE_PLUS
    if options.dla is not None:
        if options.dla >= builder.num_DLA_cores:
            raise InputError(f"DLA core {options.dla}: this device has {builder.num_DLA_cores}")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla
    if options.target is not None:
        _set_target(trt, config, options.target)


def _set_target(trt: Any, config: Any, target: str) -> None:
    name = target.upper().replace("_", "")
    known = dir(getattr(trt, "ComputeCapability", None))
    if not hasattr(config, "set_compute_capability") or name not in known:
        shown = ", ".join(sorted(item.lower() for item in known if item.startswith("SM")))
        raise InputError(
            f"target {target!r}: "
            + (f"expected one of {shown}" if shown else "only TensorRT-RTX builds for other GPUs")
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)


def _profile(builder: Any, network: Any, options: EngineOptions) -> Any:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    input_shapes, output_shapes = (
        {tensor.name: tuple(tensor.shape) for tensor in side} for side in (inputs, outputs)
    )
    profile = builder.create_optimization_profile()
    for name, sizes in profile_shapes(input_shapes, output_shapes, options.batch).items():
        profile.set_shape(name, *sizes)
    return profile


def _use_timing_cache(config: Any, data: bytes) -> Any:
    """Use the timings of earlier builds, unless they are of another version or GPU."""
    cache = config.create_timing_cache(data)
    if cache is None:
        cache = config.create_timing_cache(b"")
    if cache is not None and not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def default_workspace() -> int:
    """Half of the free memory, at most 4 GiB: on a Jetson all programs share it."""
    return min(free_memory() // 2, _LARGEST_DEFAULT)


def free_memory() -> int:
    """Bytes that programs can allocate now, caches included.

    Raises:
        BackendError: this system has no /proc/meminfo.
    """
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        raise BackendError("free memory is unknown here: give --workspace, such as 2G") from None
    return free * 1024

"""TensorRT and TensorRT-RTX as libraries: import, logging, loading of engines."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from taidpt.runtime.backends.buffers import TensorSpec
from taidpt.runtime.backends.engine_files import FLAVOURS, TITLES, EngineFile
from taidpt.runtime.backends.plugin_library import PLUGIN_VARIABLE, load_plugins
from taidpt.runtime.errors import BackendError, MissingDependencyError

__all__ = ["LoadedEngine", "import_tensorrt", "is_installed", "load_engine"]

_LOG = logging.getLogger("taidpt.runtime")
_INSTALL = {
    "tensorrt": "on x86-64: pip install 'taidpt[tensorrt]'; on a Jetson: JetPack's own, seen by "
    "an environment made with --system-site-packages (docs/jetson.md)",
    "tensorrt-rtx": "pip install 'taidpt[tensorrt-rtx]'",
}


def is_installed(flavour: str) -> bool:
    """Whether the package is installed; it is not imported."""
    return importlib.util.find_spec(FLAVOURS[flavour]) is not None


def import_tensorrt(flavour: str) -> Any:
    """Import the package.

    Raises:
        MissingDependencyError: the package is not installed.
        BackendError: the import fails.
    """
    if not is_installed(flavour):
        raise MissingDependencyError(f"{TITLES[flavour]} is not installed; {_INSTALL[flavour]}")
    try:
        return importlib.import_module(FLAVOURS[flavour])
    except (ImportError, OSError) as error:
        raise BackendError(f"{TITLES[flavour]} is installed and does not load: {error}") from None


@dataclass(frozen=True)
class LoadedEngine:
    """An engine on the GPU.

    Attributes:
        trt: the package.
        engine: the engine of that package.
        runtime, logger, cache: referenced by the engine, so they must outlive it.
        config: the argument of `create_execution_context`.
    """

    trt: Any
    engine: Any
    runtime: Any
    logger: Any
    config: Any
    cache: Any = None

    def new_context(self, scratch: int) -> Any:
        """An execution context whose activations are at address `scratch`."""
        context = self.engine.create_execution_context(self.config)
        if context is None:
            raise BackendError(f"no execution context: {self.logger.last_error}")
        context.set_device_memory(scratch, self.scratch_bytes)
        return context

    @property
    def scratch_bytes(self) -> int:
        """Memory for the activations of one running context, in bytes."""
        return int(self.engine.device_memory_size_v2)

    def batches(self, name: str) -> tuple[int, int]:
        """The smallest and the largest batch of an input."""
        least, _, largest = self.engine.get_tensor_profile_shape(name, 0)
        return int(least[0]), int(largest[0])

    def names(self, inputs: bool) -> tuple[str, ...]:
        """Names of the inputs, or of the outputs."""
        return tuple(name for name, is_input in self._names() if is_input == inputs)

    def form_of(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape, with −1 for free dimensions, and type."""
        shape = tuple(int(size) for size in self.engine.get_tensor_shape(name))
        return shape, np.dtype(self.trt.nptype(self.engine.get_tensor_dtype(name)))

    def tensors(
        self, shapes: Mapping[str, tuple[int, ...]], context: Any
    ) -> tuple[TensorSpec, ...]:
        """Set the shapes of the inputs, and return all inputs and outputs with theirs.

        Raises:
            BackendError: the engine refuses the shapes.
        """
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise BackendError(
                    f"the engine refuses {name} of shape {list(shape)}: {self.logger.last_error}"
                )
        return tuple(self._spec(name, is_input, context) for name, is_input in self._names())

    def _spec(self, name: str, is_input: bool, context: Any) -> TensorSpec:
        shape = tuple(int(size) for size in context.get_tensor_shape(name))
        if min(shape, default=0) < 1:
            raise BackendError(f"the engine has no shape for {name}: {list(shape)}")
        return TensorSpec(name, shape, self.form_of(name)[1], is_input)

    def _names(self) -> Iterator[tuple[str, bool]]:
        for index in range(self.engine.num_io_tensors):
            name = str(self.engine.get_tensor_name(index))
            yield name, self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT


def load_engine(trt: Any, data: bytes, file: EngineFile) -> LoadedEngine:
    """Load a serialised engine onto the current GPU, with the plugins that the user names.

    Args:
        trt: the package.
        data: the engine; it is executable code, so it must be trusted.
        file: its file and key.
    Raises:
        BackendError: TensorRT refuses the engine, or the plugin library does not load.
    """
    logger = _make_logger(trt)
    runtime = trt.Runtime(logger)
    plugins = load_plugins(trt)
    if file.brings_host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        missing = file.has_plugins and plugins is None
        hint = f"; it was built with plugins: let {PLUGIN_VARIABLE} name their library"
        raise BackendError(
            f"TensorRT refuses the engine: {logger.last_error}{hint if missing else ''}"
        )
    return LoadedEngine(trt, engine, runtime, logger, *_run_config(trt, engine))


def _run_config(trt: Any, engine: Any) -> tuple[Any, Any]:
    """The argument of `create_execution_context`, and the kernel cache that it refers to.

    Contexts use memory that we allocate. TensorRT-RTX compiles kernels at run time: by default
    those for the current shapes in the background, while slower general kernels run. A CUDA graph
    recorded meanwhile would keep the slower kernels, so kernels are compiled before the first run,
    once for all contexts of an engine.
    """
    memory = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if trt.__name__ != FLAVOURS["tensorrt-rtx"]:
        return memory, None
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(memory)
    strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    config.dynamic_shapes_kernel_specialization_strategy = strategy
    cache = config.create_runtime_cache()
    config.set_runtime_cache(cache)
    return config, cache


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of an untyped package
        """Passes messages of TensorRT to `logging`, and keeps the last error."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = "TensorRT gave no reason"

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger.Severity
            line = " ".join(message.split())[:300]
            if severity in (levels.ERROR, levels.INTERNAL_ERROR):
                self.last_error = line
            _LOG.debug("%s: %s", severity.name, line)

    return Logger()

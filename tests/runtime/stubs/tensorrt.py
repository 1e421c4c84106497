"""A stub of TensorRT: an "engine" is the name of an ONNX file, ONNX Runtime does its work.

It has the calls of TensorRT 10.3 that the backend makes, checks their arguments as TensorRT does,
and reads and writes at the addresses that it is given, inside the stub driver's stream. It says
nothing about a real engine.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
import os
from typing import Any

import numpy as np
import onnxruntime

__version__ = "10.3.0"
_DRIVER = ctypes.CDLL("libcuda.so.1")
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_KINDS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    USER_MANAGED = 2


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self) -> None:
        pass


def nptype(kind: type[Any]) -> type[Any]:
    return kind


class PluginRegistry:
    """Opens a library as TensorRT does: by its `getCreators`, and once."""

    def __init__(self) -> None:
        self.libraries: dict[str, Any] = {}

    def load_library(self, path: str) -> Any:
        library = ctypes.CDLL(path)
        count = ctypes.c_int32()
        if path in self.libraries or not hasattr(library, "getCreators"):
            return None
        library.getCreators(ctypes.byref(count))
        self.libraries[path] = library
        return library if count.value else None


_REGISTRY = PluginRegistry()


def get_plugin_registry() -> PluginRegistry:
    return _REGISTRY


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if not data.startswith(b"{"):
            self.logger.log(ILogger.Severity.ERROR, "the magic tag does not match")
            return None
        document = json.loads(data)
        if document.pop("plugin", False) and not _REGISTRY.libraries:
            self.logger.log(ILogger.Severity.ERROR, "IPluginCreator not found in Plugin Registry")
            return None
        return Engine(self.logger, **document)


class Engine:
    device_memory_size_v2 = 4096

    def __init__(self, logger: Any, onnx: str, batch: list[int]) -> None:
        self.logger, self.batch = logger, batch
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.tensors = {**self.inputs, **{v.name: v for v in self.session.get_outputs()}}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> type[Any]:
        return _KINDS[self.tensors[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(s if isinstance(s, int) else -1 for s in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert profile == 0
        return [(size, *self.get_tensor_shape(name)[1:]) for size in self.batch]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = 0
        self.kept: list[Any] = []

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self.engine.device_memory_size_v2
        self.scratch = memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        free = self.engine.get_tensor_shape(name)
        same = len(free) == len(shape) and all(
            f in (-1, s) for f, s in zip(free, shape, strict=True)
        )
        least, _, most = self.engine.batch
        if not same or (name == "frames" and not least <= shape[0] <= most):
            text = f"setInputShape: {list(shape)} does not satisfy the profile"
            self.engine.logger.log(ILogger.Severity.ERROR, text)
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        sizes = {}
        for known, shape in self.shapes.items():
            sizes.update(zip(self.engine.tensors[known].shape, shape, strict=True))
        shape = self.engine.tensors[name].shape
        return tuple(s if isinstance(s, int) else sizes.get(s, -1) for s in shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % 256:
            self.engine.logger.log(ILogger.Severity.ERROR, "setTensorAddress: not aligned")
            return False
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert self.scratch, "no memory for activations"
        if os.environ.get("STUB_TENSORRT_BREAKS"):
            self.engine.logger.log(ILogger.Severity.ERROR, "executeV3: illegal memory access")
            return False
        assert set(self.addresses) == set(self.engine.tensors), "a tensor without an address"
        arrays = {name: self._array(name) for name in self.engine.tensors}

        def work(_: Any) -> None:
            values = self.engine.session.run(None, {n: arrays[n] for n in self.engine.inputs})
            outputs = self.engine.session.get_outputs()
            for value, output in zip(values, outputs, strict=True):
                arrays[output.name][...] = value

        self.kept.append(_CALLBACK(work))
        return _DRIVER.cuLaunchHostFunc(ctypes.c_void_p(stream), self.kept[-1], None) == 0

    def _array(self, name: str) -> np.ndarray:
        shape = self.get_tensor_shape(name)
        kind = np.dtype(self.engine.get_tensor_dtype(name))
        size = math.prod(shape) * kind.itemsize
        raw = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(raw, kind).reshape(shape)

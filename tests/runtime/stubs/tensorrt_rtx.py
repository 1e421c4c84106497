"""A stub of TensorRT-RTX: TensorRT's, whose contexts are made with a runtime configuration."""

from __future__ import annotations

import enum
from typing import Any

import tensorrt
from tensorrt import ExecutionContextAllocationStrategy, ILogger, TensorIOMode, nptype

__all__ = ["ExecutionContextAllocationStrategy", "ILogger", "TensorIOMode", "nptype"]
__version__ = "1.7.1.116"
# How each context was made, in order.
MADE: list[Config] = []


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class Config:
    def __init__(self) -> None:
        self.memory: ExecutionContextAllocationStrategy | None = None
        self.cache: object | None = None
        self.dynamic_shapes_kernel_specialization_strategy = (
            DynamicShapesKernelSpecializationStrategy.LAZY
        )

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        self.memory = strategy

    def create_runtime_cache(self) -> object:
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self.cache = cache
        return True


class Engine(tensorrt.Engine):
    def create_runtime_config(self) -> Config:
        return Config()

    def create_execution_context(self, how: Any) -> tensorrt.Context:
        config = how if isinstance(how, Config) else Config()
        if config is not how:
            config.set_execution_context_allocation_strategy(how)
        MADE.append(config)
        assert config.memory is ExecutionContextAllocationStrategy.USER_MANAGED
        return tensorrt.Context(self)


class Runtime(tensorrt.Runtime):
    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        engine = super().deserialize_cuda_engine(data)
        if engine is not None:
            engine.__class__ = Engine
        return engine

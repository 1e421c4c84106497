"""What every inference backend looks like: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from taidpt.runtime.preprocess import U8Array

__all__ = ["DEVICES", "Backend", "BackendOptions", "Outputs", "ProviderSpec"]

Outputs = Mapping[str, npt.NDArray[np.float32]]
ProviderSpec = str | tuple[str, Mapping[str, Any]]

DEVICES = ("auto", "cpu", "cuda", "tensorrt")


@dataclass(frozen=True)
class BackendOptions:
    """What the user asked for.

    Attributes:
        device: "auto" takes the best that works and logs which; any other must work or fail.
        providers: ONNX Runtime providers by name, in order; overrides `device`.
        threads: threads inside one call; None leaves the choice to the backend.
        trust_engine: load engines and plugin libraries that this machine has no record of.
    """

    device: str = "auto"
    providers: Sequence[ProviderSpec] | None = None
    threads: int | None = None
    trust_engine: bool = False


class Backend(Protocol):
    """Runs the bundle's graph; safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What runs the graph, for logs: "onnxruntime 1.23.2 (CPUExecutionProvider)"."""

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda" or "tensorrt"."""

    def run(self, frames: U8Array) -> Outputs:
        """Run a batch.

        Args:
            frames: uint8 [N, *InputSpec.frame_shape]: RGB [N, height, width, 3], or NV12.
        Returns:
            The graph's outputs by name, float32, N rows each.
        Raises:
            BackendError: the backend failed.
        """

    def close(self) -> None:
        """Let go of the device's memory; `run` must not be called afterwards."""

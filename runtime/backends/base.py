"""What every inference backend looks like: arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Union

import numpy as np
import numpy.typing as npt

from taidpt.runtime.preprocess.preprocessor import U8Array

if TYPE_CHECKING:
    from taidpt.runtime.preprocess.device_frames import DeviceFrames

__all__ = [
    "NO_BANK",
    "Backend",
    "BackendOptions",
    "BankInputs",
    "Frames",
    "Outputs",
    "ProviderSpec",
]

# by name, so that no module is loaded for frames that never come
Frames = Union[U8Array, "DeviceFrames"]
Outputs = Mapping[str, npt.NDArray[Any]]
ProviderSpec = str | tuple[str, Mapping[str, Any]]

BankInputs = Mapping[str, npt.NDArray[np.float32]]
NO_BANK: BankInputs = MappingProxyType({})


@dataclass(frozen=True)
class BackendOptions:
    """What the user asked for.

    Attributes:
        device: one of `DEVICES`; "auto" takes the best that works and says which, any other must
            work or fail.
        providers: ONNX Runtime providers by name, in order; overrides `device`.
        threads: threads inside one call; None leaves the choice to the backend.
        trust_engine: load engines that this machine has no record of.
        engine: the engine's file in the bundle; None takes the best of those that may run here.
    """

    device: str = "auto"
    providers: Sequence[ProviderSpec] | None = None
    threads: int | None = None
    trust_engine: bool = False
    engine: str | None = None


class Backend(Protocol):
    """Runs the bundle's graph; safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """What runs the graph, for logs: "onnxruntime 1.23.2 (CPUExecutionProvider)"."""

    @property
    def device(self) -> str:
        """Where it runs: one of `DEVICES`, or another provider's own name."""

    def run(self, frames: Frames, bank: BankInputs = NO_BANK) -> Outputs:
        """Run a batch.

        Args:
            frames: uint8 [N, *InputSpec.frame_shape]: RGB [N, height, width, 3], or NV12; in host
                memory, or on a GPU for those that run there.
            bank: the graph's other inputs where its bank is one of them, float32. Never changed:
                it is the same object from call to call until another bank takes its place, so
                that a device copies it once a swap.
        Returns:
            The graph's outputs by name, N rows each: float32, and integers where they are indices.
        Raises:
            InputError: frames on a GPU that this backend cannot read.
            BackendError: the backend failed.
        """

    def close(self) -> None:
        """Let go of the device's memory; `run` must not be called afterwards."""

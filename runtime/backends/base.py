"""The interface of every inference backend: arrays in, arrays out."""

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

# a string, so that the module of GPU frames is loaded only where they are used
Frames = Union[U8Array, "DeviceFrames"]
Outputs = Mapping[str, npt.NDArray[Any]]
ProviderSpec = str | tuple[str, Mapping[str, Any]]

BankInputs = Mapping[str, npt.NDArray[np.float32]]
NO_BANK: BankInputs = MappingProxyType({})


@dataclass(frozen=True)
class BackendOptions:
    """The user's choice of a backend.

    Attributes:
        device: one of `DEVICES`; "auto" takes the fastest that works and logs which.
        providers: ONNX Runtime providers by name, in order; overrides `device`.
        threads: threads inside one call; None uses the backend's default.
        trust_engine: load engines that are not in this machine's record.
        engine: the engine's file in the bundle; None takes the fastest that may run here.
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
        """Library and version, for logs: "ONNX Runtime 1.23.2"."""

    @property
    def device(self) -> str:
        """The device: one of `DEVICES`, or the name of another provider."""

    def run(self, frames: Frames, bank: BankInputs = NO_BANK) -> Outputs:
        """Run a batch.

        Args:
            frames: uint8 [N, *InputSpec.frame_shape]: RGB [N, height, width, 3], or NV12; in host
                memory, or on a GPU for backends that run there.
            bank: the graph's other inputs if its bank is an input, float32. The same object
                in every call until the bank is replaced, and never modified, so that a device
                copies each bank once.
        Returns:
            The graph's outputs by name, N rows each: float32, or integers for indices.
        Raises:
            InputError: frames on a GPU that this backend cannot read.
            BackendError: the backend failed.
        """

    def close(self) -> None:
        """Release the device's memory; `run` must not be called afterwards."""

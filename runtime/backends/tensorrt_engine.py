"""Backend of TensorRT and TensorRT-RTX engines; needs neither torch nor ONNX Runtime."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from taidpt.runtime.backends.base import NO_BANK, BackendOptions, BankInputs, Frames, Outputs
from taidpt.runtime.backends.buffers import ALIGNMENT
from taidpt.runtime.backends.cuda_driver import CudaDriver
from taidpt.runtime.backends.engine_files import TITLES, Machine, choose_engine
from taidpt.runtime.backends.engine_runner import EngineRunner
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.backends.outputs import GraphForm, TensorForm
from taidpt.runtime.backends.tensorrt_library import LoadedEngine, import_tensorrt, load_engine
from taidpt.runtime.backends.trusted_engines import read_trusted
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, InputError
from taidpt.runtime.preprocess.device_frames import DeviceFrames

__all__ = ["TensorRTBackend"]


class TensorRTBackend:
    """An engine of the bundle. Threads may call `run` at once; they take turns."""

    def __init__(self, bundle: Bundle, options: BackendOptions, flavour: str = "tensorrt") -> None:
        """Choose an engine, check that it may run here, and load it.

        Raises:
            MissingDependencyError: TensorRT or cuda-bindings is not installed.
            BackendError: there is no GPU, no engine that fits and is trusted, or loading fails.
            BundleError: the engine does not match the manifest.
        """
        trt = import_tensorrt(flavour)
        machine = Machine(flavour, str(trt.__version__), gpu_architecture())
        file = choose_engine(bundle, machine, options.engine)
        data = read_trusted(bundle.file(file.name), options.trust_engine)
        self._flavour = flavour
        self._title = f"{TITLES[flavour]} {trt.__version__}, {file.precision} engine"
        self._frames = bundle.manifest.input.name
        self._frame_shape = bundle.manifest.input.frame_shape
        self._form = GraphForm(bundle)
        self._bank = NO_BANK
        self._runner: EngineRunner | None = None
        self._engine: LoadedEngine | None = None
        self._lock = threading.Lock()
        self._cuda = CudaDriver()
        try:
            self._engine = load_engine(trt, data, file)
            sides = (_declared(self._engine, inputs) for inputs in (True, False))
            self._form.check_declared("engine", *sides)
            if bundle.manifest.graph.bank == "constant":
                self._runner = self._new_runner(self._engine, NO_BANK)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def name(self) -> str:
        """Library, version and precision of the engine."""
        return self._title

    @property
    def device(self) -> str:
        """Either "tensorrt" or "tensorrt-rtx"."""
        return self._flavour

    def run(self, frames: Frames, bank: BankInputs = NO_BANK) -> Outputs:
        """Run a batch of any size, in parts if it exceeds the engine's largest batch."""
        with self._lock:
            engine = self._engine
            if engine is None:
                raise BackendError("this tagger is closed; load the bundle again")
            self._cuda.enter()
            if self._runner is None or bank is not self._bank:
                self._use(engine, bank)
            assert self._runner is not None  # set by `_use`
            if isinstance(frames, DeviceFrames):
                outputs = self._run_device(self._runner, frames)
            else:
                most = self._runner.most
                begins = range(0, len(frames), most)
                parts = [self._runner.run(frames[begin : begin + most]) for begin in begins]
                outputs = parts[0] if len(parts) == 1 else _joined(parts)
        self._form.check_outputs(outputs, len(frames), bank)
        return outputs

    def close(self) -> None:
        """Free the graphs, contexts, engine and memory; may be called twice."""
        with self._lock:
            if self._runner is not None:
                self._cuda.enter()
                self._runner.close()
            self._runner = self._engine = None
            self._cuda.close()

    def _use(self, engine: LoadedEngine, bank: BankInputs) -> None:
        """Switch banks: upload one of as many tags, or lay out the memory again."""
        if self._runner is not None and self._runner.fits(bank):
            self._runner.put(bank)
        else:
            runner = self._new_runner(engine, bank)
            if self._runner is not None:
                self._runner.close()
            self._runner = runner
        self._bank = bank

    def _new_runner(self, engine: LoadedEngine, bank: BankInputs) -> EngineRunner:
        return EngineRunner(engine, self._cuda, self._frames, self._frame_shape, bank)

    def _run_device(self, runner: EngineRunner, frames: DeviceFrames) -> dict[str, Any]:
        if not runner.least <= len(frames) <= runner.most:
            raise InputError(
                f"this engine takes {runner.least} to {runner.most} GPU frames at once, got "
                f"{len(frames)}; build one for more: taidpt-export BUNDLE --engine … --batches …"
            )
        if frames.address % ALIGNMENT:
            raise InputError(
                f"TensorRT takes GPU frames that begin at a multiple of {ALIGNMENT} bytes, these "
                f"begin at {frames.address:#x}; copy them to a buffer of their own on the GPU"
            )
        device = self._cuda.device_of(frames.address)
        if device != self._cuda.ordinal:
            raise InputError(f"the frames lie on GPU {device}, the engine on {self._cuda.ordinal}")
        return runner.run_device(frames.address, len(frames), frames.stream)


def _declared(engine: LoadedEngine, inputs: bool) -> dict[str, TensorForm]:
    """Inputs or outputs of an engine; its batches are those of its profile."""
    forms = {name: engine.form_of(name) for name in engine.names(inputs)}
    return {
        name: TensorForm(str(dtype), [None if size < 0 else size for size in (-1, *shape[1:])])
        for name, (shape, dtype) in forms.items()
    }


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

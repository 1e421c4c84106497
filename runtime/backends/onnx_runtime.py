"""Backend of ONNX Runtime: the CPU, or its CUDA and TensorRT providers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taidpt.runtime.backends.base import (
    NO_BANK,
    BackendOptions,
    BankInputs,
    Frames,
    Outputs,
    ProviderSpec,
)
from taidpt.runtime.backends.outputs import GraphForm, TensorForm
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.onnx_weights import check_external_data
from taidpt.runtime.errors import (
    BackendError,
    BundleError,
    InputError,
    MissingDependencyError,
    one_line,
)
from taidpt.runtime.storage.user_folders import cache_folder

if TYPE_CHECKING:
    from taidpt.runtime.preprocess.device_frames import DeviceFrames

__all__ = ["OnnxRuntimeBackend", "import_onnxruntime", "quiet_options"]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "ort-tensorrt": "TensorrtExecutionProvider",
}
_DEVICES = {provider: device for device, provider in _PROVIDERS.items()}
# What a provider is started with unless the caller names these options. The CUDA provider would
# multiply fp32 in TF32, which keeps ten bits of a factor: on an H200 scores of the toy world
# differed from the CPU's by 2.0e-3, without it by 1.0e-6. Where speed counts more, export fp16.
_DEFAULT_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
# Severity level of ONNX Runtime's loggers. Its errors reach us as exceptions, so the coloured lines
# that it prints for them would only repeat ours.
_FATAL_ONLY = 4
# Largest batch of the engines that the TensorRT provider builds; an engine's memory grows with it.
_LARGEST_BATCH = 8


class OnnxRuntimeBackend:
    """One session of the bundle's graph. Threads may call `run` at once."""

    def __init__(self, bundle: Bundle, options: BackendOptions, device: str = "cpu") -> None:
        """Open the graph.

        Args:
            bundle: its graph is opened.
            options: threads; `providers` override the device.
            device: "cpu", "cuda" or "ort-tensorrt".
        Raises:
            BackendError: the device or provider is missing or does not start.
            BundleError: ONNX Runtime refuses the graph, or it differs from the manifest.
        """
        ort = import_onnxruntime()
        wanted = options.providers
        if wanted is None:
            wanted = _providers_of(device, bundle)
        _check_available(ort, wanted)
        self._open = partial(_open, ort, providers=wanted, options=options)
        self._session = self._open(bundle.file(bundle.manifest.graph.file))
        self._provider = _check_used(self._session, wanted)
        self._version = str(ort.__version__)
        self._input = bundle.manifest.input.name
        self._form = GraphForm(bundle)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._form.check_declared("graph", _declared(inputs), _declared(outputs))
        self._outputs = list(self._form.outputs)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def name(self) -> str:
        """Library and version."""
        return f"ONNX Runtime {self._version}"

    @property
    def device(self) -> str:
        """One of "cpu", "cuda" and "ort-tensorrt", or the name of another provider."""
        return _DEVICES.get(self._provider, self._provider)

    def run(self, frames: Frames, bank: BankInputs = NO_BANK) -> Outputs:
        """Run a batch uint8 [N, *frame_shape]; the outputs by name."""
        session = self._session
        if session is None:
            raise BackendError("this tagger is closed; load the bundle again")
        if not isinstance(frames, np.ndarray):
            self._wait_for(frames)
        try:
            if isinstance(frames, np.ndarray):
                values = session.run(self._outputs, {self._input: frames, **bank})
            else:
                values = _run_bound(session, self._input, self._outputs, frames, bank)
        except Exception as error:  # onnxruntime's errors have no public base class
            raise BackendError(f"{self.name} failed: {one_line(error)[:300]}") from error
        outputs = dict(zip(self._outputs, values, strict=True))
        self._form.check_outputs(outputs, len(frames), bank)
        return outputs

    def new_session(self, graph: Path) -> Any:
        """A session of another graph with the same options, for comparison.

        Raises:
            BundleError: ONNX Runtime refuses the graph.
        """
        return self._open(graph)

    def _wait_for(self, frames: DeviceFrames) -> None:
        """Wait until the producer of GPU frames is done with them."""
        if self._provider == _PROVIDERS["cpu"]:
            raise InputError(
                f"these frames lie on GPU {frames.device}, and this tagger runs on the CPU; copy "
                "them to host memory first, or load the bundle on a GPU device"
            )
        if frames.stream is not None:
            from taidpt.runtime.backends.cuda_driver import CudaDriver

            # ONNX Runtime has its own stream and cannot wait for another one
            with CudaDriver(frames.device) as cuda:
                cuda.wait(frames.stream)

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def import_onnxruntime() -> Any:
    """The package, with its process-wide logger silenced: errors arrive as exceptions.

    Raises:
        MissingDependencyError: the package is not installed or does not load.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be loaded ({error}); pip install onnxruntime"
        ) from None
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    return onnxruntime


def quiet_options(ort: Any) -> Any:
    """Session options without a log."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    return settings


def _run_bound(
    session: Any, name: str, outputs: Sequence[str], frames: DeviceFrames, bank: BankInputs
) -> Any:
    """Run GPU frames in place; the outputs are copied to host memory."""
    binding = session.io_binding()
    shape = list(frames.shape)
    binding.bind_input(name, "cuda", frames.device, np.uint8, shape, frames.address)
    for other, values in bank.items():
        binding.bind_cpu_input(other, values)
    for output in outputs:
        binding.bind_output(output)
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()


def _providers_of(device: str, bundle: Bundle) -> list[ProviderSpec]:
    """A device's provider, and the CPU for nodes that it does not support."""
    cpu = _PROVIDERS["cpu"]
    if device == "cpu":
        return [cpu]
    if device == "cuda":
        return [_PROVIDERS[device], cpu]
    return [(_PROVIDERS[device], tensorrt_options(bundle)), _PROVIDERS["cuda"], cpu]


def tensorrt_options(bundle: Bundle) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider, which builds an engine at the first start.

    Engines are kept in this user's cache, `$XDG_CACHE_HOME/taidpt`: an engine is executable code,
    and a bundle may come from elsewhere. Precision is that of the graph.
    """
    digest = bundle.manifest.files[bundle.manifest.graph.file].sha256
    folder = cache_folder() / "ort-tensorrt" / digest[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from None
    spec = bundle.manifest.input
    frame = "x".join(map(str, spec.frame_shape))
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
        "trt_layer_norm_fp32_fallback": "True",
        "trt_profile_min_shapes": f"{spec.name}:1x{frame}",
        "trt_profile_opt_shapes": f"{spec.name}:1x{frame}",
        "trt_profile_max_shapes": f"{spec.name}:{_LARGEST_BATCH}x{frame}",
    }


def _check_available(ort: Any, providers: Sequence[ProviderSpec]) -> None:
    if not providers:
        raise InputError("the list of providers is empty")
    available = ort.get_available_providers()
    for provider in providers:
        if _provider_name(provider) not in available:
            raise BackendError(
                f"this onnxruntime has no {_provider_name(provider)}, it has "
                f"{', '.join(available)}; for a GPU: pip uninstall onnxruntime, then "
                "pip install onnxruntime-gpu"
            )


def _open(ort: Any, model: Path, providers: Sequence[ProviderSpec], options: BackendOptions) -> Any:
    settings = quiet_options(ort)
    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"threads should be at least 1, got {options.threads}")
        settings.intra_op_num_threads = options.threads
    started = [_with_options(provider) for provider in providers]
    check_external_data(model)
    try:
        # Its own fallback prints to stdout and changes the provider without a word to the caller.
        return ort.InferenceSession(
            str(model), sess_options=settings, providers=started, enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors have no public base class
        raise BundleError(
            f"{model}: onnxruntime {ort.__version__} refuses the graph: {one_line(error)[:300]}"
        ) from error


def _check_used(session: Any, wanted: Sequence[ProviderSpec]) -> str:
    """Refuse a silent fallback: ONNX Runtime ignores a provider whose libraries do not load."""
    used = str(session.get_providers()[0])
    first = _provider_name(wanted[0])
    if used != first:
        raise BackendError(
            f"{first} did not start here ({used} would have run instead); check the driver and "
            "the CUDA libraries, or ask for the device cpu"
        )
    return used


def _declared(values: Sequence[Any]) -> dict[str, TensorForm]:
    """Inputs or outputs of a session; what is no tensor keeps ONNX Runtime's name of its type."""
    return {value.name: TensorForm(_dtype(value.type), tuple(value.shape)) for value in values}


def _dtype(kind: str) -> str:
    name = kind.removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _with_options(provider: ProviderSpec) -> tuple[str, dict[str, Any]]:
    name = _provider_name(provider)
    given = {} if isinstance(provider, str) else provider[1]
    return name, {**_DEFAULT_OPTIONS.get(name, {}), **given}


def _provider_name(provider: ProviderSpec) -> str:
    return provider if isinstance(provider, str) else provider[0]

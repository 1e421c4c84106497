"""ONNX Runtime: the CPU by default, its CUDA and TensorRT providers where they are installed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taidpt.runtime.backends.base import DEVICES, BackendOptions, Outputs, ProviderSpec
from taidpt.runtime.bundle import Bundle
from taidpt.runtime.errors import BackendError, BundleError, InputError, MissingDependencyError
from taidpt.runtime.preprocess import U8Array

__all__ = ["OnnxRuntimeBackend"]

_LOG = logging.getLogger("taidpt.runtime")
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_DEVICES = {provider: device for device, provider in _PROVIDERS.items()}
_ERRORS_ONLY = 3


class OnnxRuntimeBackend:
    """One session of the bundle's graph. `run` may be called from several threads."""

    def __init__(self, bundle: Bundle, options: BackendOptions) -> None:
        """Open the graph.

        Raises:
            BackendError: the device or provider asked for is not there or does not start.
            BundleError: ONNX Runtime refuses the graph.
        """
        ort = _import_onnxruntime()
        model = bundle.file(bundle.manifest.graph.file)
        wanted = _choose(ort, options)
        self._session = _open(ort, model, wanted, options)
        auto = options.device == "auto" and options.providers is None
        self._provider = _check_used(self._session, wanted, strict=not auto)
        self._version = str(ort.__version__)
        self._input = bundle.manifest.input.name
        self._outputs = [output.name for output in self._session.get_outputs()]
        _check_graph(self._session, bundle)
        if auto:
            _log_choice(ort, self._provider, wanted)

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @property
    def name(self) -> str:
        """Library, version and provider."""
        return f"onnxruntime {self._version} ({self._provider})"

    @property
    def device(self) -> str:
        """ "cpu", "cuda" or "tensorrt"; another provider's own name."""
        return _DEVICES.get(self._provider, self._provider)

    def run(self, frames: U8Array) -> Outputs:
        """Run a batch uint8 [N, *frame_shape]; the outputs by name, float32."""
        session = self._session
        if session is None:
            raise BackendError("this tagger is closed; load the bundle again")
        try:
            values = session.run(self._outputs, {self._input: frames})
        except Exception as error:  # onnxruntime's errors share no public base class
            raise BackendError(f"{self.name} failed: {_one_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"onnxruntime cannot be loaded ({error}); pip install onnxruntime"
        ) from None
    return onnxruntime


def _choose(ort: Any, options: BackendOptions) -> Sequence[ProviderSpec]:
    if options.providers is not None:
        return _check_available(ort, list(options.providers))
    if options.device not in DEVICES:
        raise InputError(f"unknown device {options.device!r}, expected one of {', '.join(DEVICES)}")
    cpu = _PROVIDERS["cpu"]
    if options.device == "auto":
        cuda = _PROVIDERS["cuda"]
        return [cuda, cpu] if cuda in ort.get_available_providers() else [cpu]
    if options.device == "cpu":
        return [cpu]
    return _check_available(ort, [_PROVIDERS[options.device], cpu])


def _check_available(ort: Any, providers: list[ProviderSpec]) -> list[ProviderSpec]:
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
    return providers


def _open(ort: Any, model: Path, providers: Sequence[ProviderSpec], options: BackendOptions) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"threads should be at least 1, got {options.threads}")
        settings.intra_op_num_threads = options.threads
    plain = [p if isinstance(p, str) else (p[0], dict(p[1])) for p in providers]
    try:
        return ort.InferenceSession(str(model), sess_options=settings, providers=plain)
    except Exception as error:  # onnxruntime's errors share no public base class
        raise BundleError(
            f"{model}: onnxruntime {ort.__version__} refuses the graph: {_one_line(error)}"
        ) from error


def _check_used(session: Any, wanted: Sequence[ProviderSpec], strict: bool) -> str:
    """ONNX Runtime falls back without an error when a provider's libraries do not load."""
    used = str(session.get_providers()[0])
    first = _provider_name(wanted[0])
    if strict and used != first:
        raise BackendError(
            f"{first} did not start here ({used} would have run instead); check the driver and "
            "the CUDA libraries, or ask for the device cpu"
        )
    return used


def _check_graph(session: Any, bundle: Bundle) -> None:
    spec = bundle.manifest.input
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: list(value.shape) for value in session.get_outputs()}
    where = bundle.path
    if spec.name not in inputs:
        raise BundleError(f"{where}: the graph has no input {spec.name!r}; export it again")
    shape = list(inputs[spec.name].shape)
    if inputs[spec.name].type != "tensor(uint8)" or shape[1:] != list(spec.frame_shape):
        raise BundleError(
            f"{where}: the graph takes {inputs[spec.name].type} {shape}, the manifest says uint8 "
            f"[N, {', '.join(map(str, spec.frame_shape))}]; export it again"
        )
    for name in ("scores", "patch_features"):
        if name not in outputs:
            raise BundleError(f"{where}: the graph has no output {name!r}; export it again")
    tags = outputs["scores"][-1]
    if isinstance(tags, int) and tags != len(bundle.names):
        raise BundleError(f"{where}: the graph scores {tags} tags, not {len(bundle.names)}")


def _log_choice(ort: Any, used: str, wanted: Sequence[ProviderSpec]) -> None:
    if _provider_name(wanted[0]) != used:
        why = f", because {_provider_name(wanted[0])} did not start"
    elif used == _PROVIDERS["cpu"]:
        why = ", because this onnxruntime has no CUDA provider"
    else:
        why = ""
    _LOG.info("device auto: %s of onnxruntime %s%s", used, ort.__version__, why)


def _provider_name(provider: ProviderSpec) -> str:
    return provider if isinstance(provider, str) else provider[0]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."

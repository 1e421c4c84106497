"""Writes a bundle as a model repository of Triton Inference Server.

models/street/            frames of any size to tags, by the torch-free runtime (Python backend)
models/street_graph/      the graph alone, in the ONNX Runtime backend or as TensorRT plans
models/street_prepare/    frames to the graph's input
models/street_finish/     scores to tags
models/street_ensemble/   prepare, graph and finish in one call
models/street-kserve.yaml an InferenceService of KServe for these models
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.backends.engine_files import ENGINES
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle
from taidpt.runtime.bundle.manifest import MANIFEST_FILE, Manifest
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.storage.temporary_folder import TemporaryFolder
from taidpt.runtime.triton_client.tensors import BANK, BUNDLE, FACTS, FRAMES, TAGS, graph_outputs
from taidpt.runtime.triton_server.config_text import Name, message
from taidpt.runtime.triton_server.plans import Plans, choose_plans

__all__ = ["RepositoryOptions", "write_repository"]

Config = Mapping[str, Any]

# Microseconds that a request waits for others. While a batch runs, requests queue, so batches fill
# without waiting: with eight clients they held 4.3 frames of 8, and with 2 ms of waiting 5.2, for
# which each frame of a single client took those 2 ms longer.
_QUEUE_US = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MODEL_PY = '''\
"""Written by `taidpt export triton`; the server's Python needs `pip install taidpt`."""

from taidpt.runtime.triton_server.python_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True)
class RepositoryOptions:
    """How the server runs a bundle.

    Attributes:
        name: the model's name; None: the bundle's.
        batch: frames in one run, at most.
        instances: copies of each model, a GPU, or on the CPU where there is none.
        device, threads: of the Python model, as for `Tagger.load`.
        plan: whether the graph alone is the bundle's TensorRT engines, not ONNX.
        trust_engine: whether engines that this machine did not build may be taken.
    """

    name: str | None = None
    batch: int = 8
    instances: int = 1
    device: str = "auto"
    threads: int | None = None
    plan: bool = False
    trust_engine: bool = False


def write_repository(path: str, output: str, options: RepositoryOptions | None = None) -> str:
    """Write the models of a bundle, and print what was written.

    Args:
        path: the bundle.
        output: the repository; other models in it stay.
    Returns:
        The model's name.
    Raises:
        InputError: a model of this name is there, the name or the bundle cannot be used, or the
            repository cannot be written; nothing is left half-written.
        BundleError: the bundle is damaged.
        BackendError: an engine is not trusted.
    """
    options = options or RepositoryOptions()
    bundle = Bundle.load(path).require_whole()
    name = options.name or bundle.path.resolve().stem
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name of a model; give letters, digits, _ and - by --name")
    if len(bundle.manifest.input.frame_shape) != 3:
        raise InputError(f"{path}: takes NV12 frames, and a server takes RGB; export it for RGB")
    plans = choose_plans(bundle, options.trust_engine) if options.plan else None
    models = _models(bundle.manifest, name, options, plans)
    target = Path(output)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for model in models:
            if (target / model).exists():
                raise InputError(
                    f"{target / model}: is there already; remove it, or give another --name"
                )
        with _put_whole(target) as work:
            for model, config in models.items():
                _write_model(work / model, config, bundle, plans)
            text = _kserve(name, target)
            (work / f"{name}-kserve.yaml").write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from None
    print(f"wrote {printable(str(target))}: {', '.join(map(printable, models))}")
    print(f"start it: tritonserver --model-repository {printable(str(target))}")
    return name


@contextlib.contextmanager
def _put_whole(target: Path) -> Iterator[Path]:
    """A folder beside the models, whose content is moved to them at the end."""
    with TemporaryFolder(target, ".taidpt-") as work:
        yield work.path
        for entry in sorted(work.path.iterdir()):
            entry.rename(target / entry.name)


def _models(
    manifest: Manifest, name: str, options: RepositoryOptions, plans: Plans | None
) -> dict[str, Config]:
    """The tagger, and for a constant bank the ensemble.

    The server batches every input, and a bank that is an input of the graph has no batch.

    Raises:
        InputError: plans are wanted, and the graph stays in the tagger.
    """
    if plans is not None:
        if manifest.graph.bank == "input":
            raise InputError(
                f"{name}: a server has no plan of a graph whose bank is an input; leave --plan out"
            )
        options = dataclasses.replace(options, batch=min(options.batch, plans.batch))
    models = {name: _tagger_config(name, manifest, options)}
    if manifest.graph.bank != "input":
        models[f"{name}_graph"] = _graph_config(f"{name}_graph", manifest, options, plans)
        models[f"{name}_prepare"] = _prepare_config(f"{name}_prepare", manifest, options)
        models[f"{name}_finish"] = _finish_config(f"{name}_finish", manifest, options)
        models[f"{name}_ensemble"] = _ensemble_config(name, manifest, options)
    return models


def _tagger_config(name: str, manifest: Manifest, options: RepositoryOptions) -> Config:
    outputs = {
        **graph_outputs(manifest),
        **{output: (kind, [-1]) for output, kind in TAGS.items()},
        **{output: ("TYPE_STRING", [1]) for output in FACTS},
    }
    bank = {**_tensor(BANK, "TYPE_STRING", [1]), "optional": True}
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": options.batch,
        "input": [_tensor(FRAMES, "TYPE_UINT8", [-1, -1, 3]), bank],
        "output": [_tensor(output, *kind) for output, kind in outputs.items()],
        **_batching(options),
        **_parameters("TaggerModel", device=options.device, threads=str(options.threads or 0)),
        **_warmup(FRAMES, manifest),
    }


def _graph_config(
    name: str, manifest: Manifest, options: RepositoryOptions, plans: Plans | None
) -> Config:
    return {
        "name": name,
        "platform": "onnxruntime_onnx" if plans is None else "tensorrt_plan",
        **({} if plans is None else plans.config),
        "max_batch_size": options.batch,
        "input": [_tensor(FRAMES, "TYPE_UINT8", list(manifest.input.frame_shape))],
        "output": [
            _tensor(output, *kind)
            for output, kind in graph_outputs(manifest).items()
            if output in manifest.graph.outputs
        ],
        **_batching(options, "KIND_AUTO" if plans is None else "KIND_GPU"),
        **_warmup(FRAMES, manifest),
    }


def _prepare_config(name: str, manifest: Manifest, options: RepositoryOptions) -> Config:
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": options.batch,
        "input": [_tensor(FRAMES, "TYPE_UINT8", [-1, -1, 3])],
        "output": [_tensor("crops", "TYPE_UINT8", list(manifest.input.frame_shape))],
        "instance_group": [{"count": options.instances, "kind": Name("KIND_CPU")}],
        **_parameters("PrepareModel"),
    }


def _finish_config(name: str, manifest: Manifest, options: RepositoryOptions) -> Config:
    scores = _graph_scores(manifest)
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": options.batch,
        "input": [_tensor(output, *graph_outputs(manifest)[output]) for output in scores],
        "output": [_tensor(output, kind, [-1]) for output, kind in TAGS.items()],
        "instance_group": [{"count": options.instances, "kind": Name("KIND_CPU")}],
        **_parameters("FinishModel"),
    }


def _ensemble_config(name: str, manifest: Manifest, options: RepositoryOptions) -> Config:
    scores = _graph_scores(manifest)
    given = {**graph_outputs(manifest), **{output: (kind, [-1]) for output, kind in TAGS.items()}}
    return {
        "name": f"{name}_ensemble",
        "platform": "ensemble",
        "max_batch_size": options.batch,
        "input": [_tensor(FRAMES, "TYPE_UINT8", [-1, -1, 3])],
        "output": [_tensor(output, *given[output]) for output in (*scores, *TAGS)],
        "ensemble_scheduling": {
            "step": [
                _step(f"{name}_prepare", {FRAMES: FRAMES}, {"crops": "crops"}),
                _step(f"{name}_graph", {FRAMES: "crops"}, {output: output for output in scores}),
                _step(
                    f"{name}_finish",
                    {output: output for output in scores},
                    {output: output for output in TAGS},
                ),
            ]
        },
    }


def _graph_scores(manifest: Manifest) -> tuple[str, ...]:
    return ("scores",) if manifest.graph.top_k is None else ("top_scores", "top_indices")


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Config:
    def pairs(names: Mapping[str, str]) -> list[Config]:
        return [{"key": key, "value": value} for key, value in names.items()]

    return {
        "model_name": model,
        "model_version": -1,
        "input_map": pairs(inputs),
        "output_map": pairs(outputs),
    }


def _tensor(name: str, kind: str, dims: list[int]) -> dict[str, Any]:
    return {"name": name, "data_type": Name(kind), "dims": dims}


def _batching(options: RepositoryOptions, kind: str = "KIND_AUTO") -> Config:
    return {
        "dynamic_batching": {"max_queue_delay_microseconds": _QUEUE_US},
        "instance_group": [{"count": options.instances, "kind": Name(kind)}],
    }


def _parameters(model: str, **texts: str) -> Config:
    """What model.py reads: the class that it takes, and options of it."""
    texts = {"model": model, **texts}
    pairs = [{"key": key, "value": {"string_value": text}} for key, text in texts.items()]
    return {"parameters": pairs}


def _warmup(frames: str, manifest: Manifest) -> Config:
    """A black frame through the model before it counts as ready."""
    shape = list(manifest.input.frame_shape)
    value = {"data_type": Name("TYPE_UINT8"), "dims": shape, "zero_data": True}
    sample = {"name": "black", "batch_size": 1, "inputs": [{"key": frames, "value": value}]}
    return {"model_warmup": [sample]}


def _write_model(folder: Path, config: Config, bundle: Bundle, plans: Plans | None) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(message(config) + "\n", "utf-8")
    if config.get("platform") == "ensemble":
        return
    if "platform" in config:
        graph = {name: bundle.path / name for name in _graph_files(bundle)}
        for name, source in (graph if plans is None else plans.files).items():
            _link(source, version / name)
        return
    (version / "model.py").write_text(_MODEL_PY, "utf-8")
    for name in (MANIFEST_FILE, *bundle.manifest.files):
        _link(bundle.path / name, version / BUNDLE / name)


def _graph_files(bundle: Bundle) -> list[str]:
    """The graph and the weights beside it."""
    return [
        name
        for name in bundle.manifest.files
        if name == MODEL_FILE or (name.startswith("model.") and not name.startswith(ENGINES))
    ]


def _link(source: Path, target: Path) -> None:
    """A hard link, so that the five models share their files, or else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _kserve(name: str, target: Path) -> str:
    """An InferenceService for KServe's runtime of Triton, which brings the server's arguments."""
    service = re.sub("[^a-z0-9-]", "-", name.lower()).strip("-")
    service = service if service[0].isalpha() else f"model-{service}"
    return f"""\
# Put {target.name}/ where the cluster reads models; `image` is Triton with `pip install taidpt`.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: grpc-v2
      storageUri: pvc://models/{target.name}
      image: REGISTRY/triton-taidpt:24.10
      ports:
        - containerPort: 9000
          name: h2c
          protocol: TCP
      resources:
        limits:
          cpu: "4"
          memory: 8Gi
      volumeMounts:
        - mountPath: /dev/shm
          name: shm
    volumes:
      # Python models exchange frames with the server here; a container has 64 MB by default
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: 1Gi
"""

"""Models of Triton's Python backend, torch-free: what each model.py imports.

The server gives a list of requests at a time, each a batch of frames of one size; those of one size
and bank are tagged together.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import BANK_FILE, Bundle
from taidpt.runtime.bundle.manifest import MANIFEST_FILE
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.results import TagBatch, Vocabulary
from taidpt.runtime.tagger.active_bank import own_bank
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.triton_client.tensors import BANK, BUNDLE, FACTS, FRAMES, manifest_id

__all__ = ["FinishModel", "PrepareModel", "TaggerModel", "TritonPythonModel"]

Array = npt.NDArray[Any]
# Banks that clients sent and that stay parsed.
_KEPT_BANKS = 4


class TritonPythonModel:
    """What the server calls: one of the classes below, as the model's parameters name it."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle that lies beside model.py."""
        if args["model_instance_kind"] == "GPU":
            os.environ["CUDA_VISIBLE_DEVICES"] = args["model_instance_device_id"]
        config = json.loads(args["model_config"])  # noqa: TID251 - written by the server
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        version = Path(args["model_repository"]) / args["model_version"]
        kinds: dict[str, type[_Model]] = {
            kind.__name__: kind for kind in (TaggerModel, PrepareModel, FinishModel)
        }
        self._model = kinds[parameters["model"]]((version / BUNDLE).resolve(), parameters)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request."""
        return self._model.execute(requests)


class _Model(ABC):
    """Answers requests; a subclass computes batches."""

    @abstractmethod
    def __init__(self, path: Path, parameters: Mapping[str, str]) -> None:
        """Load a bundle."""

    @abstractmethod
    def _run(self, arrays: Mapping[str, Array], wanted: set[str]) -> Mapping[str, Array]:
        """The outputs that are wanted, N rows each, for inputs of N rows."""

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; a request that fails gets an error of its own."""
        import triton_python_backend_utils as backend

        groups: dict[Any, list[int]] = {}
        inputs = [self._inputs(backend, request) for request in requests]
        for index, arrays in enumerate(inputs):
            groups.setdefault(self._key(arrays), []).append(index)
        answers: list[Any] = [None] * len(requests)
        for members in groups.values():
            wanted = {name for i in members for name in requests[i].requested_output_names()}
            try:
                parts = self._run_group([inputs[index] for index in members], wanted)
            except TaidptError as error:
                failed = backend.InferenceResponse(error=backend.TritonError(str(error)))
                parts = []
                for index in members:
                    answers[index] = failed
            for index, part in zip(members, parts, strict=False):
                names = requests[index].requested_output_names()
                tensors = [backend.Tensor(name, part[name]) for name in names]
                answers[index] = backend.InferenceResponse(output_tensors=tensors)
        return answers

    def _inputs(self, backend: Any, request: Any) -> dict[str, Array]:
        return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}

    def _key(self, arrays: Mapping[str, Array]) -> Any:
        """Requests of one key are run together."""
        bank = arrays.get(BANK)
        shapes = tuple((name, array.shape[1:]) for name, array in sorted(arrays.items()))
        return shapes, None if bank is None else hashlib.sha256(_text(bank)).digest()

    def _run_group(
        self, group: Sequence[Mapping[str, Array]], wanted: set[str]
    ) -> list[dict[str, Array]]:
        """Join the batches of some requests, run them, and split the results."""
        joined = {name: np.concatenate([one[name] for one in group]) for name in group[0]}
        found = self._run(joined, wanted)
        counts = [len(next(iter(one.values()))) for one in group]
        ends = np.cumsum(counts)
        return [
            {name: np.ascontiguousarray(rows[end - count : end]) for name, rows in found.items()}
            for count, end in zip(counts, ends.tolist(), strict=True)
        ]


class TaggerModel(_Model):
    """Frames of any size to scores, tags, features; and the bundle's manifest and bank."""

    def __init__(self, path: Path, parameters: Mapping[str, str]) -> None:
        """Load the bundle on the device of the parameters."""
        self._tagger = Tagger.load(
            path,
            device=parameters.get("device", "auto"),
            threads=int(parameters.get("threads", "0")) or None,
        )
        # a second tagger of the same graph, so that a client's bank is not the others'
        self._other = self._tagger.with_threshold(0.0)
        manifest = (path / MANIFEST_FILE).read_bytes()
        bank = (path / BANK_FILE).read_bytes()
        facts = (manifest, bank, manifest_id(manifest).encode())
        self._facts = dict(zip(FACTS, facts, strict=True))
        self._banks: OrderedDict[bytes, ClassBank] = OrderedDict()

    def _run(self, arrays: Mapping[str, Array], wanted: set[str]) -> Mapping[str, Array]:
        count = len(arrays[FRAMES])
        found: dict[str, Array] = {
            name: np.full((count, 1), self._facts[name], object) for name in wanted & {*FACTS}
        }
        if wanted - set(found):
            batch = self._tagger_for(arrays.get(BANK)).tag_batch(arrays[FRAMES])
            found |= {name: rows for name, rows in batch.outputs.items() if name in wanted}
            found |= _tags(batch, wanted)
        return found

    def _tagger_for(self, bank: Array | None) -> Tagger:
        if bank is None:
            return self._tagger
        data = _text(bank)
        key = hashlib.sha256(data).digest()
        if key not in self._banks:
            self._banks[key] = _parse_bank(data)
            while len(self._banks) > _KEPT_BANKS:
                self._banks.popitem(last=False)
        self._other.use_bank(self._banks[key])
        return self._other


class PrepareModel(_Model):
    """The first step of the ensemble: frames of any size to the graph's input."""

    def __init__(self, path: Path, parameters: Mapping[str, str]) -> None:
        """Load the bundle."""
        self._preprocess = Preprocessor(Bundle.load(path).manifest.input)

    def _run(self, arrays: Mapping[str, Array], wanted: set[str]) -> Mapping[str, Array]:
        return {"crops": self._preprocess.batch(arrays[FRAMES])}


class FinishModel(_Model):
    """The last step of the ensemble: the graph's scores to tags."""

    def __init__(self, path: Path, parameters: Mapping[str, str]) -> None:
        """Load the bundle."""
        self._vocabulary: Vocabulary = own_bank(Bundle.load(path)).vocabulary

    def _run(self, arrays: Mapping[str, Array], wanted: set[str]) -> Mapping[str, Array]:
        return _tags(TagBatch(arrays, self._vocabulary), wanted)


def _tags(batch: TagBatch, wanted: set[str]) -> dict[str, Array]:
    """Names, scores, on and probability, [N, C] each; a probability that is unknown is NaN."""
    vocabulary, shape = batch.vocabulary, batch.scores.shape
    makers: dict[str, Callable[[], Array]] = {
        "scores": lambda: batch.scores,
        "on": lambda: batch.on,
        "names": lambda: np.broadcast_to(
            np.array([name.encode() for name in vocabulary.names], object), shape
        ),
        "probability": lambda: _probability(batch),
    }
    return {name: make() for name, make in makers.items() if name in wanted}


def _probability(batch: TagBatch) -> Array:
    found = np.full(batch.scores.shape, np.nan, np.float32)
    for index in range(len(batch.vocabulary.names)):
        known = batch.vocabulary.probabilities(index, batch.scores[:, index])
        if known is not None:
            found[:, index] = known
    return found if batch.exact is None else np.where(batch.exact, found, np.nan)


def _text(strings: Array) -> bytes:
    value = strings.reshape(-1)[0]
    return value if isinstance(value, bytes) else str(value).encode()


def _parse_bank(data: bytes) -> ClassBank:
    """A bank from the content of its file.

    Raises:
        InputError: it is none.
    """
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".bank") as file:
        file.write(data)
        file.flush()
        try:
            return ClassBank.load(file.name)
        except TaidptError as error:
            raise InputError(f"the input {BANK}: {error}") from None

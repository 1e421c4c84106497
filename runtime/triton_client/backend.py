"""A backend that is a model of a Triton Inference Server: `Tagger.load("triton://host:8001/street")`.

Frames are resized and cropped here, so that a frame of any size is some 150 KB on the network. A
server on this machine takes and gives them in shared memory.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from taidpt.runtime.backends.base import NO_BANK, BackendOptions, BankInputs, Frames, Outputs
from taidpt.runtime.backends.choice import Device
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import BANK_FILE, Bundle
from taidpt.runtime.bundle.manifest import MANIFEST_FILE, Manifest
from taidpt.runtime.errors import BackendError, InputError
from taidpt.runtime.loopback import is_loopback
from taidpt.runtime.optional import optional_packages
from taidpt.runtime.storage.temporary_folder import TemporaryFolder
from taidpt.runtime.triton_client import SCHEME
from taidpt.runtime.triton_client.call import infer, places
from taidpt.runtime.triton_client.shared_memory import SharedMemory
from taidpt.runtime.triton_client.tensors import (
    BANK,
    FACTS,
    FRAMES,
    largest_outputs,
    manifest_id,
)

__all__ = ["TritonBackend", "open_server"]

T = TypeVar("T")

_PORT = 8001  # of gRPC, as the server chooses it
_NO_SHARING = "shared-memory=off"
# A server that restarts answers again after some seconds: loading the model takes most of them.
_PATIENCE_S, _FIRST_PAUSE_S = 20.0, 0.1
# A tagger that is loaded has a person who waits for it, perhaps with a typing error.
_LOAD_PATIENCE_S = 2.0
_DOWN = ("StatusCode.UNAVAILABLE",)
# In errors of a server that stops or loads a model, and of one that restarted and lost its regions.
_PASSING = ("has no available versions", "shared memory region")
# gRPC's own limit of 4 MB is one frame of 4K, or ten frames with their features.
_MOST_BYTES = 1 << 30
_PIXEL = np.zeros((1, 1, 1, 3), np.uint8)
_HEADS = ("scores", "top_scores", "top_indices", "global_features", "patch_features")


class TritonBackend:
    """Runs the graph on a server; safe to call from several threads at once.

    A call waits up to 20 seconds for a server that is down, and continues when it is back.
    """

    def __init__(self, client: Any, address: str, model: str) -> None:
        self._client, self._address, self._model = client, address, model
        self._outputs: Sequence[str] = ()
        self._bundle_id, self._most = "", 1
        self._bundle: Bundle | None = None
        self._folder: TemporaryFolder | None = None
        self._shared: SharedMemory | None = None
        self._kept: tuple[BankInputs, bytes | None] | None = None

    @property
    def name(self) -> str:
        """The server, for logs."""
        memory = "" if self._shared is None else ", shared memory"
        return f"Triton Inference Server, {self._address}/{self._model}{memory}"

    @property
    def device(self) -> str:
        """Not one of this machine's."""
        return "server"

    def share_memory(self) -> None:
        """Use shared memory from now on, if the server can map this machine's."""
        self._shared = SharedMemory.open(self._client)

    def fetch_bundle(self) -> Bundle:
        """The model's bundle without its graph: manifest and bank in a temporary folder.

        Raises:
            InputError: the model is none of ours.
            BackendError: the server is down.
        """
        config = self._patiently(
            lambda: self._client.get_model_config(self._model).config, _LOAD_PATIENCE_S
        )
        self._most = max(int(config.max_batch_size), 1)
        found = self._infer({FRAMES: _PIXEL}, FACTS)
        data, bank = (bytes(found[name].reshape(-1)[0]) for name in FACTS[:2])
        where = f"{SCHEME}{self._address}/{self._model}"
        manifest = Manifest.from_bytes(data, where)
        self._bundle_id = manifest_id(data)
        self._folder = TemporaryFolder(Path(tempfile.gettempdir()), "taidpt-triton-", 0o700)
        folder = self._folder.path
        self._bundle = Bundle(folder, manifest, (0, 0, 0))
        (folder / MANIFEST_FILE).write_bytes(data)
        (folder / BANK_FILE).write_bytes(bank)
        self._outputs = [name for name in _HEADS if name in manifest.graph.outputs]
        return self._bundle

    def run(self, frames: Frames, bank: BankInputs = NO_BANK) -> Outputs:
        """Run a batch on the server.

        Raises:
            InputError: frames on a GPU.
            BackendError: the server is down, has another bundle now, or failed.
        """
        if not isinstance(frames, np.ndarray):
            raise InputError(f"{self.name}: takes frames in host memory; copy them first")
        data = self._bank_bytes(bank) if bank else None
        manifest = self._own_bundle().manifest
        tags = len(bank["scale"]) if bank else len(manifest.names)
        each = largest_outputs(manifest, tags)
        starts = range(0, len(frames), self._most)
        parts = [self._run(frames[start : start + self._most], data, each) for start in starts]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, frames: Any, bank: bytes | None, each: Mapping[str, int]) -> dict[str, Any]:
        inputs: dict[str, Any] = {FRAMES: frames}
        if bank is not None:
            inputs[BANK] = np.full((len(frames), 1), bank, object)
        sizes = {name: len(frames) * each[name] for name in self._outputs}
        sizes[FRAMES] = frames.nbytes
        found = self._infer(inputs, (*self._outputs, "bundle_id"), sizes)
        self._require_same(found.pop("bundle_id"))
        return found

    def _require_same(self, served: Any) -> None:
        if served.reshape(-1)[0].decode() != self._bundle_id:
            raise BackendError(
                f"{self.name}: has another bundle than when this tagger was loaded; load it again"
            )

    def close(self) -> None:
        """Close the connection."""
        if self._shared is not None:
            self._shared.close()
        self._client.close()
        if self._folder is not None:
            self._folder.close()

    def _bank_bytes(self, bank: BankInputs) -> bytes | None:
        """What is sent for a bank: the content of a bank file, or None for the server's own."""
        kept = self._kept
        if kept is None or kept[0] is not bank:
            kept = self._kept = (bank, self._as_file(bank))
        return kept[1]

    def _as_file(self, bank: BankInputs) -> bytes | None:
        own = self._own_bundle().bank
        if all(np.array_equal(rows, getattr(own, name)) for name, rows in bank.items()):
            return None
        arrays: dict[str, Any] = dict(bank)
        names = tuple(map(str, range(len(bank["scale"]))))  # the server needs none
        model = {"model": self._own_bundle().manifest.model.to_json()}
        path = self._own_bundle().path / "sent.bank"
        ClassBank(names, **arrays, metadata=model).save(path)
        return path.read_bytes()

    def _own_bundle(self) -> Bundle:
        if self._bundle is None:
            raise RuntimeError("fetch_bundle comes first")
        return self._bundle

    def _infer(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        sizes: Mapping[str, int] | None = None,
    ) -> dict[str, Any]:
        """Call the model; `sizes` are the largest of tensors that memory can be shared for."""
        from tritonclient.utils import InferenceServerException

        def call() -> dict[str, Any]:
            shared = self._shared
            if shared is None or not sizes:
                return infer(self._client, self._model, inputs, outputs, None)
            place, end = places(sizes)
            try:
                with shared.region(end) as region:
                    return infer(self._client, self._model, inputs, outputs, (region, place))
            except OSError:  # this machine has no more memory to share
                shared.close()
                self._shared = None
                return infer(self._client, self._model, inputs, outputs, None)
            except InferenceServerException:
                # another bundle with more tags does not fit into the region either
                found = infer(self._client, self._model, {FRAMES: _PIXEL}, ("bundle_id",), None)
                self._require_same(found["bundle_id"])
                raise

        return self._patiently(call)

    def _patiently(self, call: Callable[[], T], patience_s: float | None = None) -> T:
        """Call, and again while the server is down or starts, for 20 seconds or as is given."""
        from tritonclient.utils import InferenceServerException

        until, pause_s = time.monotonic() + (patience_s or _PATIENCE_S), _FIRST_PAUSE_S
        while True:
            try:
                return call()
            except InferenceServerException as error:
                down = error.status() in _DOWN
                again = down or any(text in str(error.message()) for text in _PASSING)
                if not again or time.monotonic() + pause_s > until:
                    raise self._as_ours(error, down) from None
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _as_ours(self, error: Any, down: bool) -> InputError | BackendError:
        text = " ".join(str(error.message()).split())
        if down:
            return BackendError(f"{self.name}: no server answers ({text}); is it running?")
        if error.status() == "StatusCode.NOT_FOUND":
            return InputError(f"{self.name}: the server has no such model ({text})")
        if error.status() == "StatusCode.INVALID_ARGUMENT":
            return InputError(
                f"{self.name}: is not a model of `taidpt export triton`, or of another version "
                f"({text})"
            )
        return BackendError(f"{self.name}: {text}")


def open_server(
    url: str, options: BackendOptions | None = None
) -> tuple[Bundle, TritonBackend, Device]:
    """Connect to a model, and fetch its manifest and bank.

    Args:
        url: `triton://host[:port]/model`; the port is that of gRPC, 8001 if it is left out. A
            server on this machine shares memory, unless `?shared-memory=off` is added.
        options: the defaults; the server's repository says where it computes.
    Raises:
        InputError: the URL is not of this form, a device is asked for, or the server has no such
            model.
        BackendError: the server is down.
        MissingDependencyError: tritonclient is not installed.
    """
    if options not in (None, BackendOptions()):
        raise InputError(
            f"{url}: device, providers, threads and trust_engine are the server's: "
            "`taidpt export triton` writes them"
        )
    address, model, share = _parse(url)
    with optional_packages("a Triton Inference Server", "fleet"):
        from tritonclient import grpc

        limits = [(f"grpc.max_{way}_message_length", _MOST_BYTES) for way in ("send", "receive")]
        client = grpc.InferenceServerClient(address, channel_args=limits)
    backend = TritonBackend(client, address, model)
    try:
        bundle = backend.fetch_bundle()
        if share and is_loopback(urlsplit(url).hostname or ""):
            backend.share_memory()
    except BaseException:
        backend.close()
        raise
    return bundle, backend, Device("server", backend.name, {})


def _parse(url: str) -> tuple[str, str, bool]:
    """Address, model, and whether memory may be shared."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORT
    except ValueError:
        host, port = None, _PORT
    model = parts.path.strip("/") if host else ""
    if not host or not model or "/" in model or parts.query not in ("", _NO_SHARING):
        raise InputError(
            f"{url}: expected triton://HOST[:PORT]/MODEL, such as triton://gpu1/street"
        )
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return address, model, not parts.query

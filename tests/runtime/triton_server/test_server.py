"""A model repository in a real Triton Inference Server, and the tagger that asks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from taidpt.runtime.errors import BackendError, InputError
from taidpt.runtime.tagger.tagger import Tagger
from taidpt.runtime.triton_client import backend as client_module
from taidpt.runtime.triton_server.repository import RepositoryOptions, write_repository
from tests.runtime.stub_driver import add_stub_engine
from tests.runtime.tiny import TinySpec, tiny_bundle
from tests.runtime.triton_server.server import Server, require_server, serving

# The ONNX Runtime backend is not in the wheel: this stands in for it, with the same tensors.
GRAPH_MODEL = """
import numpy as np, onnxruntime
import triton_python_backend_utils as backend

class TritonPythonModel:
    def initialize(self, args):
        self.session = onnxruntime.InferenceSession(args["model_repository"] + "/1/model.onnx")

    def execute(self, requests):
        answers = []
        for request in requests:
            names = list(request.requested_output_names())
            frames = backend.get_input_tensor_by_name(request, "frames").as_numpy()
            found = self.session.run(names, {"frames": frames})
            tensors = [backend.Tensor(*pair) for pair in zip(names, found)]
            answers.append(backend.InferenceResponse(tensors))
        return answers
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """A server with a swappable and a constant bundle."""
    require_server()
    tiny_bundle(folder / "street.taidpt", TinySpec(thresholds=(1.0,), bank_as="input"))
    tiny_bundle(folder / "fixed.taidpt", TinySpec(seed=3, thresholds=(1.0,)))
    models = folder / "models"
    for name in ("street", "fixed"):
        options = RepositoryOptions(batch=4, device="cpu")
        write_repository(str(folder / f"{name}.taidpt"), str(models), options)
    config = models / "fixed_graph" / "config.pbtxt"
    text = config.read_text("utf-8")
    assert 'platform: "onnxruntime_onnx"' in text
    config.write_text(text.replace('platform: "onnxruntime_onnx"', 'backend: "python"'), "utf-8")
    (models / "fixed_graph" / "1" / "model.py").write_text(GRAPH_MODEL)
    with serving(models, folder) as running:
        yield running


def frame(seed: int, height: int = 40, width: int = 60) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def client(server: Server) -> Any:
    from tritonclient import grpc

    return grpc.InferenceServerClient(f"127.0.0.1:{server.port}")


def ask(server: Server, model: str, inputs: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    """What any client of the server sees."""
    from tritonclient import grpc

    tensors = []
    for name, array in inputs.items():
        kind = "BYTES" if array.dtype == object else "UINT8"
        tensors.append(grpc.InferInput(name, list(array.shape), kind))
        tensors[-1].set_data_from_numpy(array)
    asked = [grpc.InferRequestedOutput(name) for name in outputs]
    with client(server) as connection:
        answer = connection.infer(model, tensors, outputs=asked)
    return {name: answer.as_numpy(name) for name in outputs}


@pytest.mark.parametrize("model", ["street", "fixed", "fixed_ensemble"])
def test_answers_are_those_of_the_tagger(folder: Path, server: Server, model: str) -> None:
    """Frames of any size in; names, scores, on and probability out."""
    frames = np.stack([frame(seed) for seed in range(3)])
    found = ask(server, model, {"frames": frames}, ["names", "scores", "on", "probability"])
    with Tagger.load(folder / f"{model.removesuffix('_ensemble')}.taidpt", device="cpu") as tagger:
        expected = tagger.tag_batch(frames)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
    assert [[name.decode() for name in row] for row in found["names"]] == [[*tagger.names]] * 3
    assert (found["on"] == expected.on).all()
    assert expected.on.any()
    assert np.isnan(found["probability"]).all()  # not calibrated


def test_a_bank_may_be_sent(folder: Path, server: Server) -> None:
    spec = TinySpec(names=("bus", "tram"), seed=8, bank_as="input")
    spec.bank().save(folder / "new.bank")
    frames = np.stack([frame(5), frame(6)])
    data = np.full((2, 1), (folder / "new.bank").read_bytes(), object)
    found = ask(server, "street", {"frames": frames, "bank": data}, ["names", "scores"])
    with Tagger.load(folder / "street.taidpt", device="cpu") as tagger:
        tagger.use_bank(folder / "new.bank")
        np.testing.assert_allclose(found["scores"], tagger.tag_batch(frames).scores, atol=1e-5)
    assert found["names"][0].tolist() == [b"bus", b"tram"]
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"the input bank: .*"):
        ask(server, "street", {"frames": frames, "bank": np.full((2, 1), b"x", object)}, ["scores"])


def test_a_tagger_of_a_server_gives_the_same_results(folder: Path, server: Server) -> None:
    url = f"triton://127.0.0.1:{server.port}/street"
    pictures = [frame(seed, 30 + seed, 50) for seed in range(6)]  # more than the server's batch
    with Tagger.load(url) as remote, Tagger.load(folder / "street.taidpt", device="cpu") as local:
        assert str(remote.device).startswith("server (Triton Inference Server, 127.0.0.1:")
        for one, other in zip(remote(pictures), local(pictures), strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
            assert [tag.name for tag in one.tags] == [tag.name for tag in other.tags]
            np.testing.assert_allclose(one.heatmap("dog"), other.heatmap("dog"), atol=1e-5)
        with remote.stream(pictures, fps=5, batch=3) as moments:
            seen = [moment.on for moment in moments]
        with local.stream(pictures, fps=5, batch=3) as moments:
            assert seen == [moment.on for moment in moments]
        assert remote.backend._kept == (remote.bank_inputs, None)  # the server's own is not sent
        bank = TinySpec(names=("bus", "tram"), seed=8).bank()
        for tagger in (remote, local):
            tagger.use_bank(bank)
        np.testing.assert_allclose(remote(pictures[0]).scores, local(pictures[0]).scores, atol=1e-5)
        assert remote.names == ("bus", "tram")
        threads = [threading.Thread(target=remote, args=(pictures[1],)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_servers_and_models_that_are_not_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_LOAD_PATIENCE_S", 0.3)
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:9/street: no server answers .*running"):
        Tagger.load("triton://127.0.0.1:9/street")
    with pytest.raises(InputError, match="the server has no such model"):
        Tagger.load(f"triton://127.0.0.1:{server.port}/none")
    with pytest.raises(InputError, match="is not a model of `taidpt export triton`"):
        Tagger.load(f"triton://127.0.0.1:{server.port}/fixed_prepare")


def test_memory_is_shared_with_a_local_server(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same results with it, without it, and where the server cannot map it."""
    url = f"triton://127.0.0.1:{server.port}/fixed"
    pictures = [frame(seed) for seed in range(5)]
    with Tagger.load(folder / "fixed.taidpt", device="cpu") as local:
        expected = local(pictures)

    def check(tagger: Tagger, shared: bool) -> None:
        found = tagger(pictures)
        assert tagger.backend.name.endswith(", shared memory") == shared
        for name, values in expected.outputs.items():
            if name in found.outputs:
                np.testing.assert_allclose(found.outputs[name], values, atol=1e-5)
        first = found.scores.copy()
        tagger(pictures[::-1])
        np.testing.assert_array_equal(found.scores, first)  # the region is written over

    with Tagger.load(url) as tagger:
        check(tagger, True)
        check(tagger, True)
        assert len(regions(server)) == 1, "a region serves all calls of a thread"
    assert regions(server) == set()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Tagger.load(url) as tagger, monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        tagger(pictures)  # needs a larger region than that which was tried first
        check(tagger, False)
    with Tagger.load(f"{url}?shared-memory=off") as tagger:
        check(tagger, False)
    monkeypatch.setattr("taidpt.runtime.triton_client.shared_memory._FOLDER", folder)
    with Tagger.load(url) as tagger:  # as where the server runs in a container
        check(tagger, False)
    assert not list(folder.glob("taidpt-*"))


def regions(server: Server) -> set[str]:
    """The regions that the server maps."""
    with client(server) as connection:
        return set(connection.get_system_shared_memory_status().regions)


CLIENT = """
import sys, time
import numpy as np
from taidpt.runtime import Tagger
tagger = Tagger.load(sys.argv[1])
tagger(np.zeros((40, 60, 3), np.uint8))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_killed_client_leaves_nothing(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"triton://127.0.0.1:{server.port}/street"
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, url],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    prefix = f"taidpt-{process.pid}-"
    assert [name for name in regions(server) if name.startswith(prefix)]
    assert len(list(tmp_path.iterdir())) == 1
    process.kill()
    process.wait()
    assert not list(Path("/dev/shm").glob(f"{prefix}*"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Tagger.load(url):  # what the server and /tmp still hold goes with the next one
        assert not [name for name in regions(server) if name.startswith(prefix)]
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def test_a_restarted_server_is_found_again(
    folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A running tagger goes on with the same bundle, and says so of another one."""
    models, work = folder / "again", folder / "work"
    work.mkdir()
    write_repository(str(folder / "street.taidpt"), str(models), RepositoryOptions(device="cpu"))
    picture = frame(1)
    found: list[Any] = []
    enough = threading.Event()

    def watch() -> None:
        while not enough.is_set():
            found.append(tagger(picture).scores)

    with serving(models, work) as first:
        tagger = Tagger.load(f"triton://127.0.0.1:{first.port}/street")
        expected = tagger(picture).scores
        thread = threading.Thread(target=watch)
        thread.start()
    before = len(found)
    with serving(models, work, first.port):
        until = time.monotonic() + 30
        while len(found) < before + 5 and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        enough.set()
        thread.join(30)
        assert len(found) >= before + 5, "the tagger did not go on"
        assert all(np.array_equal(scores, expected) for scores in found)
        assert regions(first), "memory is shared with the new server, too"
        other = tiny_bundle(
            folder / "other.taidpt", TinySpec(names=tuple("abcdefg"), bank_as="input")
        )
        shutil.rmtree(models)
        options = RepositoryOptions(name="street", device="cpu")
        write_repository(str(other), str(models), options)
        with client(first) as control:
            control.load_model("street")
        with pytest.raises(BackendError, match="has another bundle than when this tagger was"):
            tagger(picture)
        with Tagger.load(f"triton://127.0.0.1:{first.port}/street") as again:
            assert again.names == tuple("abcdefg")
    monkeypatch.setattr(client_module, "_PATIENCE_S", 0.3)
    with pytest.raises(BackendError, match="no server answers"):
        tagger(picture)
    tagger.close()


def test_graphs_configurations_are_read_by_the_server(folder: Path, server: Server) -> None:
    """The server's own parser takes them, and misses the backends alone."""
    models, work = folder / "onnx", folder / "onnx-work"
    work.mkdir()
    write_repository(str(folder / "fixed.taidpt"), str(models), RepositoryOptions(device="cpu"))
    planned = tiny_bundle(folder / "planned.taidpt")
    add_stub_engine(planned)
    write_repository(str(planned), str(models), RepositoryOptions(plan=True))
    for path in models.iterdir():
        if path.is_dir() and not path.name.endswith("_graph"):
            shutil.rmtree(path)
    with pytest.raises(AssertionError), serving(models, work):
        pass
    (log,) = work.glob("*.log")
    text = log.read_text("utf-8")
    assert "unable to find backend library for backend 'onnxruntime'" in text
    assert "unable to find backend library for backend 'tensorrt'" in text
    assert "failed to parse" not in text.lower()

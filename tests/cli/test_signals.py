"""Signals end a process whatever it is in: a graph that loops for ever stands for a hung driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, BundleWriter
from tests.runtime.tiny import TinySpec, tiny_graph, tiny_manifest

# Says on standard error when a graph is about to run.
RUN = """
import sys
import taidpt.watchdog
from taidpt.runtime.backends.onnx_runtime import OnnxRuntimeBackend
taidpt.watchdog._GRACE_S = float(sys.argv.pop(1))
real = OnnxRuntimeBackend.run
def run(self, *arguments):
    print("running", file=sys.stderr, flush=True)
    return real(self, *arguments)
OnnxRuntimeBackend.run = run
from taidpt.cli import main
sys.argv[0] = "taidpt"
main()
"""
# Longer than repeats that count as one signal, and enough to be inside the graph.
PAUSE_S = 0.8


def endless_loop(graph: onnx.GraphProto) -> None:
    """Let the scores wait for a Loop of 2^62 rounds."""
    for node in graph.node:
        node.output[:] = ["before" if name == "scores" else name for name in node.output]
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Sub", ["state", "state"], ["next"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("goes", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(1 << 62), "rounds"))
    graph.initializer.append(numpy_helper.from_array(np.array(True), "on"))
    graph.node.append(helper.make_node("Loop", ["rounds", "on", "before"], ["scores"], body=body))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loop")
    spec = TinySpec()
    model = tiny_graph(spec, spec.bank())
    endless_loop(model.graph)
    with BundleWriter(folder / "b.taidpt") as writer:
        writer.write(MODEL_FILE, model.SerializeToString())
        spec.bank().save(writer.path(BANK_FILE))
        writer.commit(tiny_manifest(spec, spec.bank()))
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    return folder / "b.taidpt"


def start(bundle: Path, command: str, grace_s: float) -> subprocess.Popen[str]:
    arguments = [command, str(bundle)]
    if command == "tag":
        arguments.append(str(bundle.with_name("a.png")))
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(grace_s), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line == "running\n":
            break
    time.sleep(PAUSE_S)
    return process


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("command", ["tag", "bench"])
def test_a_signal_ends_what_never_returns(
    bundle: Path, command: str, number: signal.Signals, code: int
) -> None:
    process = start(bundle, command, grace_s=1.0)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in error
    assert "terminate called" not in error


@pytest.mark.timeout(120)
def test_a_signal_ends_a_call_of_a_driver_that_hangs() -> None:
    """A lock that is taken twice: the call never returns, and signals do not interrupt it.

    CDLL releases the interpreter lock, as all calls of the CUDA driver do.
    """
    code = """
import ctypes, os, signal, sys, threading
from taidpt import watchdog
watchdog._GRACE_S = 0.2
signal.signal(signal.SIGTERM, lambda *_: None)
watchdog.watch_signals()
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
for _ in range(2):
    library.pthread_mutex_lock(lock)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    line = "terminated; what was running did not end by itself\n"
    assert (done.returncode, done.stderr) == (143, line)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGINT, signal.SIGTERM), 143)],
)
def test_a_second_signal_ends_it_at_once(
    bundle: Path, numbers: tuple[signal.Signals, ...], code: int
) -> None:
    process = start(bundle, "tag", grace_s=3600.0)
    for number in numbers:
        process.send_signal(number)
        time.sleep(PAUSE_S)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in error


@pytest.mark.timeout(120)
def test_a_signal_sent_twice_at_once_counts_once(tmp_path: Path) -> None:
    """`timeout` sends SIGTERM to the process and to its group: the command may still end well."""
    code = """
import os, signal, sys, time
from taidpt import watchdog
signal.signal(signal.SIGTERM, lambda *_: None)
watchdog.watch_signals()
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
time.sleep(0.7)
sys.exit(5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (5, b"")


@pytest.mark.timeout(120)
def test_a_thread_inside_a_library_does_not_change_the_exit_code(bundle: Path) -> None:
    code = """
import sys, threading, time
import numpy as np
from taidpt.runtime import Tagger
from taidpt.watchdog import end_process
tagger = Tagger.load(sys.argv[1], device="cpu")
frame = np.zeros((16, 16, 3), np.uint8)
threading.Thread(target=tagger, args=(frame,), daemon=True).start()
time.sleep(0.8)
print("out", flush=True)
end_process(7)
"""
    command = [sys.executable, "-c", code, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "")

"""The TensorRT backend on a stub driver and a stub TensorRT: call order, arguments, and values.

The stubs stand for what no machine without a GPU has. They show that the backend lays out memory,
sets shapes and addresses, copies, captures and frees as it should; not that a GPU agrees.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.stub_driver import StubMachine, add_stub_engine
from tests.runtime.tiny import TinySpec, tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path, own_state: None) -> Path:
    path = tiny_bundle(tmp_path / "t.taidpt")
    add_stub_engine(path)
    return path


START = """
import sys, threading
import numpy as np
from taidpt.runtime import Tagger
bundle = sys.argv[1]
frames = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), dtype=np.uint8)
expected = Tagger.load(bundle, device="cpu").tag_batch(frames)

def check(found, rows=slice(None)):
    for name in ("scores", "patch_features", "global_features"):
        values = expected.outputs[name][rows]
        np.testing.assert_allclose(found.outputs[name], values, atol=1e-5, err_msg=name)

tagger = Tagger.load(bundle)
assert tagger.device.name == "tensorrt", tagger.device
"""


def test_single_calls_then_a_graph(machine: StubMachine, bundle: Path) -> None:
    code = """
check(tagger.tag_batch(frames[:2]), slice(0, 2))
check(tagger.tag_batch(frames[2:4]), slice(2, 4))
check(tagger.tag_batch(frames[4:6]), slice(4, 6))
print(tagger.device)
tagger.close()
tagger.close()
try:
    tagger.tag_batch(frames[:1])
except Exception as error:
    print(type(error).__name__, error)
"""
    printed = machine.run(START + code, [bundle])
    device, closed = printed.splitlines()
    assert device == "tensorrt (TensorRT 10.3, fp32 engine)"
    assert closed == "BackendError this tagger is closed; load the bundle again"
    frames, outputs = 2 * 16 * 16 * 3, 5
    one_run = [f"copy in {frames}", *_copies_out(machine.calls)]
    assert len(one_run) == 1 + outputs
    calls = [
        call for call in machine.calls if not call.startswith(("allocate", "retain", "stream"))
    ]
    assert calls == [
        *one_run,
        "wait",
        "begin capture mode 1",
        *one_run,
        f"instantiate {len(one_run) + 1} steps",
        "launch",
        "wait",
        "launch",
        "wait",
        "release with 0 allocations and 0 graphs alive",
    ]
    assert "stream flags 1" in machine.calls
    assert any(
        call.startswith("allocate host") and call.endswith("flags 2") for call in machine.calls
    )


def _copies_out(calls: list[str]) -> list[str]:
    begin = next(i for i, call in enumerate(calls) if call.startswith("copy out"))
    end = next(i for i, call in enumerate(calls[begin:], begin) if call == "wait")
    return calls[begin:end]


def test_memory_shared_with_the_cpu_is_never_copied(machine: StubMachine, bundle: Path) -> None:
    code = "for _ in range(2): check(tagger.tag_batch(frames[:3]), slice(0, 3))"
    machine.run(START + code + "\ntagger.close()", [bundle], {"STUB_CUDA_INTEGRATED": "1"})
    assert not [call for call in machine.calls if call.startswith("copy")]
    assert "instantiate 1 steps" in machine.calls


def test_batches_of_any_size(machine: StubMachine, tmp_path: Path, bundle: Path) -> None:
    path = tiny_bundle(tmp_path / "three.taidpt")
    add_stub_engine(path, batch=(3, 3, 4))
    code = """
for count in (1, 2, 3, 4, 5, 8, 11, 1):
    check(tagger.tag_batch(frames[:count]), slice(0, count))
"""
    machine.run(START + code, [path])


def test_several_threads_take_turns(machine: StubMachine, bundle: Path) -> None:
    code = """
found = {}
def work(start):
    for index in range(start, 11, 3):
        found[index] = tagger.tag_batch(frames[index:index + 1])
threads = [threading.Thread(target=work, args=(start,)) for start in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 11
for index, batch in found.items():
    check(batch, slice(index, index + 1))
tagger.close()
"""
    machine.run(START + code, [bundle])
    assert machine.calls[-1] == "release with 0 allocations and 0 graphs alive"


def test_an_engine_that_cannot_be_captured_runs_call_by_call(
    machine: StubMachine, bundle: Path
) -> None:
    code = """
import logging
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
for _ in range(3):
    check(tagger.tag_batch(frames[:1]), slice(0, 1))
"""
    printed = machine.run(START + code, [bundle], {"STUB_CUDA_NO_CAPTURE": "1"})
    assert printed.startswith("TensorRT runs without a CUDA graph, which is slower: CUDA: ")
    assert printed.count("\n") == 1
    assert "launch" not in machine.calls


def test_tensorrt_rtx_compiles_kernels_before_capture(
    machine: StubMachine, tmp_path: Path, own_state: None
) -> None:
    path = tiny_bundle(tmp_path / "rtx.taidpt")
    add_stub_engine(path, flavour="tensorrt-rtx", version="1.7.1.116")
    code = (
        START.replace('"tensorrt", tagger', '"tensorrt-rtx", tagger')
        + """
import tensorrt_rtx as trt
for count in (1, 1, 1, 2):
    check(tagger.tag_batch(frames[:count]), slice(0, count))
strategies = {config.dynamic_shapes_kernel_specialization_strategy for config in trt.MADE}
assert strategies == {trt.DynamicShapesKernelSpecializationStrategy.EAGER}, strategies
# one cache: what one context has compiled, the others need not
assert len(trt.MADE) == 3 and len({config.cache for config in trt.MADE}) == 1
assert trt.MADE[0].cache is not None
tagger.close()
"""
    )
    machine.run(code, [path])
    assert machine.calls.count("launch") == 2


DEVICE_FRAMES = """
from taidpt.runtime.backends.cuda_driver import CudaDriver
cuda = CudaDriver()
pinned = cuda.allocate_host(1 << 20)  # what a decoder would hold on the GPU
import ctypes
def on_gpu(array, offset=0, stream=7, **changes):
    ctypes.memmove(pinned.address + offset, array.ctypes.data, array.nbytes)
    class Surface:
        __cuda_array_interface__ = {
            "shape": array.shape, "typestr": "|u1", "data": (pinned.device_address + offset, True),
            "strides": None, "version": 3, "stream": stream, **changes}
    return Surface()
def fails(surface):
    try:
        tagger.tag_batch(surface)
    except Exception as error:
        print(type(error).__name__, error)
    else:
        raise AssertionError("was taken")
"""


def test_gpu_frames_are_read_in_place(machine: StubMachine, bundle: Path) -> None:
    code = """
for _ in range(3):
    check(tagger.tag_batch(on_gpu(frames[:2])), slice(0, 2))
one = tagger(on_gpu(frames[5], 4096, stream=None))
np.testing.assert_allclose(one.scores, expected.scores[5], atol=1e-5)
fails(on_gpu(frames[:2], 100))
fails(on_gpu(frames[:5]))
fails(on_gpu(frames[:2, :8]))
fails(on_gpu(frames[:2], data=(4096, True)))
"""
    printed = machine.run(START + DEVICE_FRAMES + code, [bundle]).splitlines()
    assert "copy in" not in "\n".join(machine.calls)
    assert machine.calls.count("record event in stream 0x7") == 3
    begun = machine.calls.index("record event in stream 0x7")
    assert machine.calls[begun + 1] == "wait for event"
    assert printed[0].startswith("InputError TensorRT takes GPU frames that begin at a multiple")
    assert printed[1].startswith("InputError this engine takes 1 to 4 GPU frames at once, got 5")
    assert "GPU frames of 16x16" in printed[2]
    assert printed[3].startswith("InputError address 0x1000 is not in a GPU's memory")


LOAD = """
import sys
from taidpt.runtime import Tagger
for device in ("tensorrt", "auto"):
    try:
        device = Tagger.load(sys.argv[1], device=device).device
        print(device, *device.passed_over.values())
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_stale_and_strange_engines_are_refused(machine: StubMachine, bundle: Path) -> None:
    path = tiny_bundle(bundle.parent / "stale.taidpt")
    for key, why in (
        ({"version": "10.0.1"}, "built by TensorRT 10.0.1, installed is 10.3.0"),
        ({"architecture": "sm_72"}, "built for sm_72, this machine has sm_87"),
        ({"graph_sha256": "0" * 64}, "the graph has changed since"),
    ):
        tiny_bundle(path)
        add_stub_engine(path, **key)
        explicit, auto = machine.run(LOAD, [path]).splitlines()
        assert explicit.startswith("BackendError")
        assert why in explicit
        assert f"taidpt-export {path} --engine fp16" in explicit
        assert auto.startswith("cpu (ONNX Runtime ")
        assert why in auto


def test_only_trusted_engines_run(machine: StubMachine, tmp_path: Path, own_state: None) -> None:
    path = tiny_bundle(tmp_path / "strange.taidpt")
    add_stub_engine(path, trusted=False)
    printed = machine.run(LOAD, [path])
    assert "an engine is executable code" in printed.splitlines()[0]
    assert "--trust-engine" in printed.splitlines()[1]
    code = "import sys\nfrom taidpt.runtime import Tagger\n"
    printed = machine.run(code + "print(Tagger.load(sys.argv[1], trust_engine=True))", [path])
    assert "5 tags, tensorrt (TensorRT 10.3, fp32 engine))" in printed


def test_an_engine_that_tensorrt_refuses_is_one_line(machine: StubMachine, bundle: Path) -> None:
    path = tiny_bundle(bundle.parent / "broken.taidpt")
    add_stub_engine(path, content=b"not an engine")
    explicit, auto = machine.run(LOAD, [path]).splitlines()
    assert explicit == "BackendError TensorRT refuses the engine: the magic tag does not match"
    assert auto.startswith("cpu (")
    assert "release with 0 allocations and 0 graphs alive" in machine.calls


def test_indices_are_integers(machine: StubMachine, bundle: Path) -> None:
    path = tiny_bundle(bundle.parent / "best.taidpt", TinySpec(top_k=2))
    add_stub_engine(path)
    code = """
right = Tagger.load(sys.argv[1], device="cpu").tag_batch(frames[:3]).outputs["top_indices"]
for _ in range(3):
    found = tagger.tag_batch(frames[:3]).outputs["top_indices"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, right)
"""
    machine.run(START + code, [path])


def test_a_bank_is_uploaded_once_and_swapped(machine: StubMachine, bundle: Path) -> None:
    path = tiny_bundle(bundle.parent / "open.taidpt", TinySpec(bank_as="input"))
    add_stub_engine(path)
    code = """
from taidpt.runtime import ClassBank
def rows(seed, C):
    made = np.random.default_rng(seed).normal(size=(C, 12)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)
on_cpu = Tagger.load(bundle, device="cpu")
for C in (5, 5, 2, 9):
    names = tuple(f"tag {i}" for i in range(C))
    bank = ClassBank.from_rows(
        names, rows(C, C), rows(C + 1, C), metadata=on_cpu.class_bank.metadata)
    for one in (tagger, on_cpu):
        one.use_bank(bank)
    for count in (1, 3, 3, 3):
        found, right = tagger.tag_batch(frames[:count]), on_cpu.tag_batch(frames[:count])
        np.testing.assert_allclose(found.outputs["scores"], right.outputs["scores"], atol=1e-5)
        assert found.outputs["scores"].shape == (count, C)
tagger.close()
"""
    machine.run(START + code, [path])
    assert machine.calls[-1] == "release with 0 allocations and 0 graphs alive"
    # five rows: laid out for the bundle's own bank of five, then only uploaded
    matrices = [call for call in machine.calls if call == f"copy in {5 * 12 * 4}"]
    assert len(matrices) == 2 * 2

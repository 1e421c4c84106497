"""Which engines may run on a machine, and the layout of their memory; needs no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.backends.buffers import ALIGNMENT, TensorSpec, plan_buffers
from taidpt.runtime.backends.engine_files import Machine, choose_engine, fingerprint, list_engines
from taidpt.runtime.bundle.bundle import Bundle, BundleWriter
from taidpt.runtime.errors import BackendError, BundleError, MissingDependencyError
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.stub_driver import add_stub_engine
from tests.runtime.tiny import tiny_bundle

HERE = Machine("tensorrt", "10.3.0", "sm_87")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "t.taidpt")


@pytest.fixture(autouse=True)
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_the_lowest_precision_that_may_run_is_chosen(bundle: Path) -> None:
    with pytest.raises(BackendError, match="has no TensorRT engine; build one here: taidpt-export"):
        choose_engine(Bundle.load(bundle), HERE)
    add_stub_engine(bundle, precision="fp32")
    add_stub_engine(bundle, precision="fp16")
    add_stub_engine(bundle, precision="int8", version="10.2.0")
    loaded = Bundle.load(bundle)
    assert len(list_engines(loaded)) == 3
    assert list_engines(loaded, "tensorrt-rtx") == []
    assert choose_engine(loaded, HERE).precision == "fp16"
    with pytest.raises(BackendError, match=r"--engine fp16 --flavour tensorrt-rtx$"):
        choose_engine(loaded, Machine("tensorrt-rtx", "1.7", "sm_87"))


@pytest.mark.parametrize(
    ("key", "here", "fault"),
    [
        ({}, HERE, None),
        ({}, Machine("tensorrt", "10.3.0", None), "built for sm_87, this machine has no GPU"),
        ({}, Machine("tensorrt", "10.3.0", "sm_110"), "this machine has sm_110"),
        ({"hardware_compatible": True}, Machine("tensorrt", "10.3.0", "sm_110"), None),
        ({"hardware_compatible": True}, Machine("tensorrt", "10.3.0", "sm_72"), "has sm_72"),
        ({}, Machine("tensorrt", "10.13.3.9", "sm_87"), "installed is 10.13.3.9"),
        ({"version_compatible": True}, Machine("tensorrt", "10.13.3.9", "sm_87"), None),
        ({"version_compatible": True}, Machine("tensorrt", "10.2.0", "sm_87"), "is 10.2.0"),
        ({"version_compatible": True}, Machine("tensorrt", "11.4.1", "sm_87"), "is 11.4.1"),
        ({"graph_sha256": "0" * 64}, HERE, "the graph has changed since"),
    ],
)
def test_what_makes_an_engine_stale(
    bundle: Path, key: dict[str, object], here: Machine, fault: str | None
) -> None:
    add_stub_engine(bundle, **key)
    (engine,) = list_engines(Bundle.load(bundle))
    faults = engine.faults(Bundle.load(bundle), here)
    if fault is None:
        assert faults == ()
    else:
        assert len(faults) == 1
        assert fault in faults[0]


def test_a_description_of_another_engine_is_refused(bundle: Path) -> None:
    engine = add_stub_engine(bundle)
    described = engine.with_suffix(".json")
    with_other = described.read_bytes().replace(b"sm_87", b"sm_86")
    loaded = Bundle.load(bundle)
    described.write_bytes(with_other)
    with pytest.raises(BundleError, match="describes another engine"):
        list_engines(loaded)
    described.write_bytes(with_other[:20])
    with pytest.raises(BundleError, match="not valid JSON"):
        list_engines(loaded)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop("flavour"),
        lambda key: key.update(flavour="fast"),
        lambda key: key.update(precision=16),
        lambda key: key.update(version=None),
        lambda key: key.update(architecture=["sm_87"]),
        lambda key: key.pop("graph_sha256"),
        lambda key: key.update(version_compatible="yes"),
    ],
)
def test_a_damaged_key_ends_neither_auto_nor_other_engines(
    bundle: Path, change: Callable[[dict[str, Any]], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Strangers can write a key whose fingerprint is right and whose values are not."""
    engine = add_stub_engine(bundle)
    key = json.loads(engine.with_suffix(".json").read_bytes())
    change(key)
    name = f"engines/tensorrt-fp32-{fingerprint(key)}"
    with BundleWriter(bundle, base=bundle) as writer:
        writer.remove(engine.relative_to(bundle).as_posix())
        writer.remove(engine.with_suffix(".json").relative_to(bundle).as_posix())
        writer.write(f"{name}.engine", b"no engine")
        writer.write(f"{name}.json", json.dumps(key).encode())
        writer.commit()
    loaded = Bundle.load(bundle)
    with pytest.raises(BackendError, match=rf"{name}\.json: .*; build one here") as caught:
        choose_engine(loaded, HERE)
    assert "\n" not in str(caught.value)
    with Tagger.load(bundle) as tagger:
        assert tagger.device.name in ("cpu", "cuda")
        assert set(tagger.device.passed_over) >= {"tensorrt", "tensorrt-rtx"}
    assert "device auto: not tensorrt" in caplog.text
    add_stub_engine(bundle, precision="fp16")
    assert choose_engine(Bundle.load(bundle), HERE).precision == "fp16"


def test_each_missing_requirement_is_named(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from taidpt.runtime.backends import tensorrt_library

    if tensorrt_library.is_installed("tensorrt"):
        pytest.skip("TensorRT is installed here")
    add_stub_engine(bundle)
    with pytest.raises(MissingDependencyError, match=r"TensorRT is not installed; .*JetPack's own"):
        Tagger.load(bundle, device="tensorrt")
    with Tagger.load(bundle) as tagger:
        assert "TensorRT is not installed" in tagger.device.passed_over["tensorrt"]
        assert str(tagger.device).startswith("cpu (ONNX Runtime ")
        assert "not installed" not in repr(tagger)
    # an engine that was built and is not run is worth a warning
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith("device auto: not tensorrt: TensorRT is not installed")


def test_the_error_names_a_missing_driver() -> None:
    from taidpt.runtime.backends.cuda_driver import CudaDriver
    from taidpt.runtime.backends.gpu import gpu_architecture

    if gpu_architecture() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises((BackendError, MissingDependencyError), match=r"CUDA driver|cuda-bindings"):
        CudaDriver()


def test_tensors_do_not_overlap() -> None:
    specs = [
        TensorSpec("frames", (4, 5, 7, 3), np.uint8, True),
        TensorSpec("scores", (4, 5), np.float32, False),
        TensorSpec("best", (4, 2), np.int64, False),
    ]
    plan = plan_buffers(specs)
    block = np.zeros(plan.nbytes, np.uint8)
    for number, slot in enumerate(plan.slots.values(), 1):
        assert slot.offset % ALIGNMENT == 0
        view = slot.view(block)
        assert (view.shape, view.dtype) == (slot.spec.shape, slot.spec.dtype)
        assert not view.any()
        view[...] = number
    assert plan.slots["scores"].nbytes_of(3) == 3 * 5 * 4
    assert [slot.spec.name for slot in plan.outputs] == ["scores", "best"]
    assert plan_buffers([]).nbytes == 0

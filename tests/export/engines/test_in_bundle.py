"""An engine is run before it is kept and trusted, on the stub TensorRT of the runtime's tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.export.checks.test_verify import bundle, with_swapped_colours  # noqa: F401  # a fixture
from tests.runtime.stub_driver import StubMachine, add_stub_engine

STORE = """
import json, shutil, sys
from pathlib import Path
from taidpt.export.engines.in_bundle import _store
from taidpt.export.engines.builder import BuiltEngine
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.runtime import Bundle
from taidpt.runtime.errors import ParityError
from taidpt.runtime.backends.trusted_engines import is_trusted

path, graph = Path(sys.argv[1]), sys.argv[2]
bundle = Bundle.load(path)
(old,) = [name for name in bundle.manifest.files if name.endswith(".engine")]
key = json.loads((path / old).with_suffix(".json").read_text())
data = json.dumps({"onnx": graph, "batch": key["batch"]}).encode()
try:
    made = _store(bundle, BuiltEngine(data, key), force=len(sys.argv) > 3)
    print("kept", made.verified, is_trusted(data))
except ParityError as error:
    print("refused", is_trusted(data), str(error))
print([name for name in Bundle.load(path).manifest.files if name.endswith(".engine")] == [old])
try:
    report = verify(path, VerifyOptions(torch="no"))
    print([c.name.split()[-1] for c in report.candidates if c.report is not None])
    report.require()
except ParityError as error:
    print(error)
"""

VERIFY = """
import sys
from pathlib import Path
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.runtime.errors import ParityError

report = verify(Path(sys.argv[1]), VerifyOptions(torch="no"))
print([f"{c.name.split()[-1]} {c.passed}" for c in report.candidates])
try:
    report.require()
except ParityError as error:
    print(error)
"""


@pytest.fixture
def with_engine(bundle: Path, tmp_path: Path, own_state: None) -> Path:  # noqa: F811
    import shutil

    path = Path(shutil.copytree(bundle, tmp_path / "street.taidpt"))
    add_stub_engine(path, trusted=False)
    return path


def state(path: Path) -> dict[str, bytes]:
    """Everything in the bundle and beside it but the state of this machine."""
    beside = {p.name: b"" for p in path.parent.iterdir()}
    return beside | {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_right_engine_is_kept_and_verified(machine: StubMachine, with_engine: Path) -> None:
    graph = with_engine.parent / "right.onnx"
    graph.write_bytes((with_engine / "model.onnx").read_bytes())
    kept, there, ran = machine.run(STORE, [with_engine, graph]).splitlines()
    assert (kept, there) == ("kept True True", "True")
    assert ran == "['(CPU)', 'TensorRT']"
    (report,) = (with_engine / "engines").glob("*.parity.json")
    assert json.loads(report.read_text())["notes"]["verified"] is True


def test_a_failing_engine_never_comes_into_the_bundle(
    machine: StubMachine, with_engine: Path, tmp_path: Path
) -> None:
    graph = with_swapped_colours(with_engine, tmp_path / "wrong.taidpt") / "model.onnx"
    before = state(with_engine)
    refused, there, ran = machine.run(STORE, [with_engine, graph]).splitlines()
    assert refused.startswith("refused False engines/tensorrt-fp32-")
    assert "disagrees with PyTorch, stored in the bundle: centred cosine" in refused
    assert (there, ran) == ("True", "['(CPU)']")
    assert state(with_engine) == before
    forced, there, ran, told = machine.run(STORE, [with_engine, graph, "force"]).splitlines()
    assert (forced, there) == ("kept True True", "True")
    assert ran == "['(CPU)', 'TensorRT']"
    assert "beyond its bounds" in told


def test_an_engine_that_breaks_while_it_runs_has_failed(
    machine: StubMachine, with_engine: Path
) -> None:
    graph = with_engine.parent / "right.onnx"
    graph.write_bytes((with_engine / "model.onnx").read_bytes())
    breaks = {"STUB_TENSORRT_BREAKS": "1"}
    before = state(with_engine)
    refused, there, ran = machine.run(STORE, [with_engine, graph], breaks).splitlines()
    assert refused.startswith("refused False engines/tensorrt-fp32-")
    assert "loads here and fails when it runs: the engine failed: executeV3" in refused
    assert (there, ran) == ("True", "['(CPU)']")
    assert state(with_engine) == before
    kept, *_ = machine.run(STORE, [with_engine, graph]).splitlines()
    assert kept == "kept True True"
    told = machine.run(VERIFY, [with_engine], breaks)
    assert "TensorRT False" in told
    assert "beyond its bounds, or broke" in told

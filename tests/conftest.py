"""What tests of several rooms share: markers, the order of files, the table of skipped tests."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import hashlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.runtime.stub_driver import StubMachine

os.environ.setdefault("OMP_NUM_THREADS", "2")
# No test cuts the power, and a disk takes some milliseconds for each of thousands of calls.
os.fsync = lambda descriptor: None  # type: ignore[assignment]
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell script
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest, above 40 s of CPU time, longest first: a process that meets one of
# them last works alone for as long as it takes.
_LONG_NAMES = (
    "test_families.py",
    "test_run.py",
    "test_views.py",
    "test_tuner.py",
    "test_triton.py",
)
_LONG_FILES = {name: place for place, name in enumerate(_LONG_NAMES)}


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> StubMachine:
    """Processes with a stub of NVIDIA's driver and of TensorRT; one at a time."""
    from tests.runtime.stub_driver import build_stub

    return build_stub(tmp_path_factory.mktemp("stub"))


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of trusted engines is the test's alone."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def shared_encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """PyTorch exports each encoder once a test run.

    That takes most of an export's time and gives the same graph for the same weights. The files are
    shared by all processes of the run; everything after them is made anew each time.
    Gives the folder, for `encoders_kept_in` in a process of the test's own.
    """
    # pytest-xdist gives each process a folder inside the run's own
    own = tmp_path_factory.getbasetemp()
    store = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "encoders"
    with encoders_kept_in(store):
        yield store


@contextlib.contextmanager
def encoders_kept_in(store: Path) -> Iterator[None]:
    """What PyTorch exports is written to this folder once, and copied from it.

    `taidpt.export.graph.encoder._export.__wrapped__` exports as always.
    """
    from taidpt.export.graph import encoder

    export = encoder._export

    @functools.wraps(export)
    def export_once(module: Any, spec: Any, opset: int, path: Path) -> None:
        kept = store / _encoder_key(module, spec, max(opset, encoder._LEAST_EXPORTED))
        if not kept.is_dir():
            store.mkdir(exist_ok=True)
            fresh = Path(mkdtemp(dir=store.parent))
            export(module, spec, opset, fresh / path.name)
            with contextlib.suppress(OSError):  # another process was first
                fresh.rename(kept)
        shutil.copytree(kept, path.parent, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "_export", export_once)
        yield


def _encoder_key(module: Any, spec: Any, opset: int) -> str:
    """A name for the graph: modules, settings, weights, input, opset, weights beside the graph."""
    from taidpt.export.graph import large_weights

    digest = hashlib.sha256(f"{module!r} {spec!r} {opset} {large_weights._LARGE}".encode())
    for name, part in module.named_modules():
        settings = {key: value for key, value in vars(part).items() if not key.startswith("_")}
        plain = {key: value for key, value in settings.items() if _is_plain(value)}
        digest.update(f"{name} {plain}".encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _is_plain(value: object) -> bool:
    """Whether the value's text is the same in every process."""
    return isinstance(value, int | float | str | tuple) or dataclasses.is_dataclass(value)


def pytest_collection_finish() -> None:
    _spare_the_collector()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Objects that a file left for good, most of them of imports, are set apart too."""
    if nextitem is not None and nextitem.path != item.path:
        _spare_the_collector()


def _spare_the_collector() -> None:
    """Exempt all objects of now from garbage collection.

    The imports of torch, onnxscript and sympy leave a million objects, which take a full collection
    0.4 s. An export runs three.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that two processes end together; `gpu` tests skip without a GPU."""
    items.sort(key=lambda item: _LONG_FILES.get(item.path.name, len(_LONG_FILES)))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if gpu_items and not _has_cuda():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="gpu: torch sees no CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One table of the skipped tests: how many, and why."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("skipped tests")
        for reason, count in sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])):
            terminalreporter.write_line(f"{count:5d}  {reason}")


def _has_cuda() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())

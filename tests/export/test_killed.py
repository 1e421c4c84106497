"""Kill −9 and Ctrl-C at every step that a writer takes on the disk: old bundle or new, never half.

Each moment is a process with an audit hook, which sees files opened, renamed, linked and removed.
It is forked from a server that has imported all and run nothing: no thread outlives a fork.
`TAIDPT_EVERY_MOMENT=1` takes all moments, otherwise a few a command.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

# Imported when used, and so again in every process that the server does not import them for.
import onnx_ir  # noqa: F401
import onnxruntime  # noqa: F401
import onnxslim  # noqa: F401
import open_clip  # noqa: F401
import pytest
from PIL import Image  # noqa: F401

from taidpt.calibration.targets import BundleTarget
from taidpt.export.engines.in_bundle import add_engine
from taidpt.export.engines.jetpack5 import add_jetpack5_graph
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import add_precision
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, BundleWriter
from tests.conftest import encoders_kept_in
from tests.export.precision.test_variant import bundle, require_rtx, template  # noqa: F401  # fixtures
from tests.export.test_exporter import some_prompts
from tests.taidpt.tiny import VIT, make_clip

STEPS = {"open", "os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "ctypes.dlsym"}
EVERY = os.environ.get("TAIDPT_EVERY_MOMENT") == "1"
INTERRUPTED = 130
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def export_again(path: Path) -> None:
    clip = make_clip(VIT)
    write_bundle(some_prompts(clip), clip, path, ExportOptions(top_k=3), SilentProgress())


def add_fp16(path: Path) -> None:
    add_precision(path, EngineRequest(EngineOptions("fp16")), SilentProgress())


def add_rtx_engine(path: Path) -> None:
    options = EngineOptions("fp32", (1, 1, 2), 1 << 30, "tensorrt-rtx", "sm_86")
    add_engine(path, EngineRequest(options), SilentProgress())


def calibrate(path: Path) -> None:
    target = BundleTarget(Bundle.load(path))
    changed = {
        tag.name: (dataclasses.replace(tag.threshold, on=9.0, off=1.0), None)
        for tag in target.bundle.manifest.tags
    }
    target.write(changed, {"frames": 0})


def add_plain_graph(path: Path) -> None:
    add_jetpack5_graph(path)


FEW = {export_again: 1, add_fp16: 12, add_rtx_engine: 2, calibrate: 6, add_plain_graph: 6}


def run_until(
    step: int | None, command: Callable[[Path], None], path: Path, how: str, encoders: Path
) -> int:
    """Run in a process of its own that ends at a step on the disk: its exit code.

    Without a step it runs to the end and its exit code is the number of steps, 250 at most.
    """
    state = os.environ["XDG_STATE_HOME"]  # the server's environment is older than the test's
    child = SERVER.Process(target=end_at, args=(step, command, path, how, state, encoders))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def end_at(
    step: int | None,
    command: Callable[[Path], None],
    path: Path,
    how: str,
    state: str,
    encoders: Path,
) -> NoReturn:
    os.environ["XDG_STATE_HOME"] = state
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        names = [str(item) for item in arguments if isinstance(item, (str, Path))]
        if event in STEPS and any("street.taidpt" in n or n == "renameat2" for n in names):
            seen += 1
            if seen == step and how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif seen == step:
                raise KeyboardInterrupt

    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.addaudithook(hook)
        with encoders_kept_in(encoders):
            command(path)
        code = min(seen, 250)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        os._exit(code)


def hidden(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir() if p.name.startswith(".street")]


def content(path: Path) -> dict[str, Any]:
    """What a bundle with right hashes says of itself, but for times; engines differ in bytes."""
    document = Bundle.load(path).require_whole().manifest.to_json()
    document["files"] = sorted(document["files"])
    document["provenance"].pop("created")
    return document


@pytest.mark.parametrize("how", ["kill", "interrupt"])
@pytest.mark.parametrize("command", list(FEW))
def test_ended_at_any_step(
    command: Callable[[Path], None],
    how: str,
    bundle: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared_encoders: Path,
) -> None:
    if command is add_rtx_engine:
        require_rtx()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    before = content(bundle)
    whole = Path(shutil.copytree(bundle, tmp_path / "other" / "street.taidpt"))
    steps = run_until(None, command, whole, how, shared_encoders)
    after = content(whole)
    assert after != before
    assert 3 < steps < 250
    few = FEW[command] if how == "kill" else 2
    moments = range(1, steps + 1, 1 if EVERY else max(1, steps // few))
    for step in moments:
        code = run_until(step, command, bundle, how, shared_encoders)
        assert code == (-signal.SIGKILL if how == "kill" else INTERRUPTED), step
        found = content(bundle)
        assert found in (before, after), step
        if found == after:
            break
    command(bundle)
    assert content(bundle) == after
    with BundleWriter(bundle, base=bundle) as writer:  # the next writer clears all up
        writer.commit()
    assert hidden(bundle) == []
    there = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert there == {*after["files"], "manifest.json"}

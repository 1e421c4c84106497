"""Running out of memory is one error line and exit code 2, whatever asked for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from taidpt.runtime.bundle.bundle import BANK_FILE, MODEL_FILE, BundleWriter
from tests.runtime.tiny import TinySpec, tiny_bundle, tiny_graph, tiny_manifest

# The address space is bounded, so that these inputs cannot take this machine's memory.
RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from taidpt.cli import main
sys.argv[0] = "taidpt"
main()
"""
# Stands for any allocation without an error line of its own.
ANYWHERE = """
import sys
import numpy as np
from taidpt import cli
cli._invoke = lambda *_: np.empty(1 << 60, np.uint8)
cli.main()
"""
TENSOR_BYTES = 20 << 30


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def sparse_bank(folder: Path) -> list[object]:
    """A bank whose tensor is a hole of 20 GB: its header is right."""
    bundle = tiny_bundle(folder / "b.taidpt", TinySpec(bank_as="input"))
    path = folder / "large.bank"
    TinySpec(bank_as="input").bank().save(path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])
    whole = {"dtype": "F32", "shape": [TENSOR_BYTES // 4], "data_offsets": [0, TENSOR_BYTES]}
    text = json.dumps({"__metadata__": header["__metadata__"], "scale": whole}).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + TENSOR_BYTES)
    return ["tag", bundle, "--bank", path]


def sparse_manifest(folder: Path) -> list[object]:
    bundle = tiny_bundle(folder / "b.taidpt")
    with (bundle / "manifest.json").open("r+b") as stream:
        stream.truncate(TENSOR_BYTES)
    return ["tag", bundle]


def large_graph(folder: Path) -> list[object]:
    """A graph that makes a tensor of 20 GB while it runs."""
    spec = TinySpec()
    model: onnx.ModelProto = tiny_graph(spec, spec.bank())
    for node in model.graph.node:
        node.output[:] = ["before" if name == "scores" else name for name in node.output]
    sizes = np.array([TENSOR_BYTES // 4])
    model.graph.initializer.append(numpy_helper.from_array(sizes, "sizes"))
    model.graph.node.extend(
        [
            helper.make_node("Expand", ["half", "sizes"], ["large"], name="large"),
            helper.make_node("Relu", ["large"], ["larger"], name="larger"),
            helper.make_node("ReduceMax", ["larger"], ["one"], name="one", keepdims=0),
            helper.make_node("Add", ["before", "one"], ["scores"], name="last"),
        ]
    )
    path = folder / "b.taidpt"
    with BundleWriter(path) as writer:
        writer.write(MODEL_FILE, model.SerializeToString())
        spec.bank().save(writer.path(BANK_FILE))
        writer.commit(tiny_manifest(spec, spec.bank()))
    return ["tag", path]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("make", [sparse_bank, sparse_manifest, large_graph])
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, make: Callable[[Path], list[object]]
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (16, 16)).save(picture)
    command, bundle, *options = make(tmp_path)
    done = run(RUN, command, bundle, picture, *options, "--device", "cpu")
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "memory" in line.lower()
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(120)
def test_an_allocation_anywhere_is_one_line() -> None:
    done = run(ANYWHERE)
    assert done.returncode == 2
    assert done.stderr.startswith("error: out of memory (Unable to allocate")
    assert len(done.stderr.splitlines()) == 1

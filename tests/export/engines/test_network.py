"""An engine built with the plugin: TensorRT-RTX's real builder, TensorRT 10.3's rule on a stub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from taidpt.export.engines.builder import engine_key
from taidpt.export.engines.network import parse_graph
from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import save_graph
from taidpt.export.precision.request import EngineOptions
from taidpt.runtime.backends.engine_files import fingerprint
from taidpt.runtime.bundle.manifest import Scoring
from taidpt.runtime.errors import EngineNotBuiltError
from tests.export.conftest import small_bank, small_graph
from tests.kernels.test_tensorrt_plugin import plugin

BUILD = """
import sys
from pathlib import Path
from taidpt.export.engines.builder import build_engine
from taidpt.export.precision.request import EngineOptions
from taidpt.runtime.backends.engine_files import fingerprint
graph = Path(sys.argv[1])
for _ in range(2):
    options = EngineOptions("fp32", (1, 2, 4), 1 << 30, "tensorrt-rtx", "sm_86")
    built = build_engine(graph, options, graph.with_name("log"))
    print(len(built.data), built.key.get("plugin_sha256"), fingerprint(built.key))
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    save_graph(append_head(small_graph("vit"), small_bank(), Scoring(40.0)), path)
    return path


@pytest.mark.tensorrt
def test_tensorrt_rtx_builds_with_the_plugin_and_without(graph: Path) -> None:
    """`build_engine` itself refuses an engine that took no plugin although one is named."""
    found = []
    for library in (str(plugin()), ""):
        done = subprocess.run(
            [sys.executable, "-c", BUILD, str(graph)],
            env={**os.environ, "TAIDPT_PLUGIN": library},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first.split()[1:] == second.split()[1:]
        found.append(first.split())
    (_, digest, named), (_, none, plain) = found
    assert len(digest) == 64
    assert none == "None"
    assert named != plain


def test_the_fingerprint_follows_the_library(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library.so"
    names = []
    for content in (None, b"one", b"two"):
        monkeypatch.delenv("TAIDPT_PLUGIN", raising=False)
        if content is not None:
            library.write_bytes(content)
            monkeypatch.setenv("TAIDPT_PLUGIN", str(library))
        key = engine_key(graph, EngineOptions("fp16", target="sm_87"), "tensorrt", "10.3.0")
        names.append(fingerprint(key))
    assert len(set(names)) == 3


class Parser:
    """Notes how it was called; the network then has a layer of the kind that is given."""

    num_errors = 0

    def __init__(self, kind: str) -> None:
        self.layer = SimpleNamespace(type=SimpleNamespace(name=kind))
        self.num_layers = 1
        self.functions: list[str] | None = None

    def get_layer(self, index: int) -> Any:
        return self.layer

    def parse(self, model: bytes, path: str) -> bool:
        assert Path(path).is_file()  # where external data is looked for
        self.functions = [function.name for function in onnx.load_from_string(model).functions]
        return True

    def parse_from_file(self, path: str) -> bool:
        self.functions = [function.name for function in onnx.load(path).functions]
        return True


@pytest.mark.parametrize(
    ("package", "version", "named", "functions"),
    [
        ("tensorrt", "10.3.0", True, []),
        ("tensorrt", "10.3.0", False, ["LocalSimilarity"]),
        ("tensorrt", "10.7.0", True, ["LocalSimilarity"]),
        ("tensorrt_rtx", "1.7.1", True, ["LocalSimilarity"]),
    ],
)
def test_functions_make_room_where_they_would_win(
    graph: Path, package: str, version: str, named: bool, functions: list[str]
) -> None:
    trt = SimpleNamespace(__name__=package, __version__=version)
    plugins = Path("library.so") if named else None
    parser = Parser("PLUGIN_V3" if named else "SOFTMAX")
    parse_graph(trt, parser, parser, graph, plugins)
    assert parser.functions == functions


def test_a_plugin_that_is_not_taken_is_an_error(graph: Path) -> None:
    trt = SimpleNamespace(__name__="tensorrt", __version__="10.7.0")
    parser = Parser("SOFTMAX")
    with pytest.raises(EngineNotBuiltError, match=r"10\.7\.0 uses no plugin of library\.so"):
        parse_graph(trt, parser, parser, graph, Path("library.so"))

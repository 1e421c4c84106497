"""A plugin library named by the environment, on a stub TensorRT and with libraries compiled here.

The real plugin in a real builder is in tests/export/engines/test_network.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.runtime.backends.plugin_library import load_plugins, plugin_sha256
from taidpt.runtime.errors import BackendError
from tests.runtime.stub_driver import StubMachine, add_stub_engine, build_library
from tests.runtime.tiny import tiny_bundle

PLUGINS = "void *const *getCreators(int *count) { static void *one; *count = 1; return &one; }\n"
LOAD = """
import sys
from taidpt.runtime import Tagger
for _ in range(2):
    try:
        print(Tagger.load(sys.argv[1], device="tensorrt").device)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def bundle(tmp_path: Path, own_state: None) -> Path:
    """One whose engine was built with plugins."""
    path = tiny_bundle(tmp_path / "t.taidpt")
    add_stub_engine(path, plugin_sha256="0" * 64)
    return path


def load(machine: StubMachine, bundle: Path, library: object) -> list[str]:
    return machine.run(LOAD, [bundle], {"TAIDPT_PLUGIN": str(library)}).splitlines()


def test_an_engine_with_plugins_runs_where_the_library_is_named(
    machine: StubMachine, bundle: Path, tmp_path: Path
) -> None:
    """Twice in one process, though a library is registered once."""
    library = build_library(tmp_path, PLUGINS)
    assert load(machine, bundle, library) == ["tensorrt (TensorRT 10.3, fp32 engine)"] * 2


def test_a_missing_library_names_the_variable(machine: StubMachine, bundle: Path) -> None:
    error = (
        "BackendError TensorRT refuses the engine: IPluginCreator not found in Plugin Registry; it "
        "was built with plugins: let TAIDPT_PLUGIN name their library"
    )
    assert load(machine, bundle, "") == [error] * 2


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (None, "there is no such file"),
        ("not C", "it does not load: "),
        ("int nothing;\n", "tensorrt 10.3.0 registers no plugin of it"),
    ],
)
def test_invalid_plugin_library_gives_one_line_error(
    machine: StubMachine, bundle: Path, tmp_path: Path, code: str | None, why: str
) -> None:
    library = tmp_path / "library.so"
    if code == "not C":
        library.write_text(code)
    elif code is not None:
        build_library(tmp_path, code)
    for line in load(machine, bundle, library):
        assert line.startswith(f"BackendError TAIDPT_PLUGIN={library}: {why}")
        assert "cmake --build build/native" in line


def test_no_library_is_loaded_without_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TAIDPT_PLUGIN", raising=False)
    assert plugin_sha256() is None
    assert load_plugins(object()) is None
    monkeypatch.setenv("TAIDPT_PLUGIN", str(tmp_path))
    with pytest.raises(BackendError, match="there is no such file"):
        plugin_sha256()

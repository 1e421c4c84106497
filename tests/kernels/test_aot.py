"""The ahead-of-time compiler, on a machine without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from taidpt.kernels import aot
from taidpt.kernels.aot_compile import KINDS, TYPES
from taidpt.kernels.aot_header import write_sources
from taidpt.kernels.local_similarity.tiles import SHARED_LIMITS
from tests.kernels.native_build import aot_folder


def facts() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((aot_folder() / "kernels.json").read_text())
    return listed


def test_every_kind_is_compiled_and_fits() -> None:
    expected = {(ptx, dtype, kind) for ptx in (False, True) for dtype in TYPES for kind in KINDS}
    assert {(fact["ptx"], fact["type"], fact["kind"]) for fact in facts()} == expected
    for fact in facts():
        data = (aot_folder() / fact["file"]).read_bytes()
        assert len(data) == fact["bytes"]
        assert fact["shared_bytes"] <= SHARED_LIMITS[fact["architecture"]]
        assert data.startswith(b"\x7fELF") or fact["ptx"]


def test_fallback_is_ptx_that_jetpack_6_takes() -> None:
    for fact in facts():
        if fact["ptx"]:
            text = (aot_folder() / fact["file"]).read_text()
            assert re.search(r"^\.version 8\.0$", text, re.MULTILINE)
            assert re.search(r"^\.target sm_80", text, re.MULTILINE)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    """One architecture again; its cubins are made of PTX, as the fallback is."""
    again = aot._compile_one(tmp_path, "87")
    assert {fact["file"] for fact in again} == {
        fact["file"] for fact in facts() if fact["architecture"] == 87
    }
    write_sources(tmp_path, facts())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == len(again) + 3
    for name in names:
        assert (tmp_path / name).read_bytes() == (aot_folder() / name).read_bytes(), name


def test_unknown_architecture_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert aot.main(["-o", str(tmp_path), "--arch", "sm_88"]) == 1
    assert "sm_88: unsupported architecture; supported: sm_72" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_kernel_over_its_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The compiler's own facts are held against the table, whatever the tiles promised."""
    monkeypatch.setitem(SHARED_LIMITS, 87, 16 * 1024)
    monkeypatch.setattr(aot, "_compile_one", lambda folder, target: facts())
    assert aot.main(["-o", str(tmp_path), "--arch", "sm_87"]) == 1
    assert re.search(r"sm87_.* needs \d+ bytes .* sm_87 has 16384", capsys.readouterr().err)

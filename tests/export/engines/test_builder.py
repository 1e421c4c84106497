"""The builder's flags: those of the key are those that the builder gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from taidpt.export.engines.builder import _configure, builder_flags, engine_key
from taidpt.export.precision.request import EngineOptions
from taidpt.runtime.backends.engine_files import fingerprint
from tests.support import require


def rtx() -> Any:
    """TensorRT-RTX and a builder of it, or a skip."""
    try:
        import tensorrt_rtx
    except ImportError:
        require("tensorrt-rtx", False, "pip install 'taidpt[tensorrt-rtx]'")
    return tensorrt_rtx


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8", "fp8"])
def test_every_flag_that_differs_from_a_default_is_in_the_key(
    precision: str, tmp_path: Path
) -> None:
    trt = rtx()
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    options = EngineOptions(precision, workspace=1 << 30, target="sm_86")
    config, default = builder.create_builder_config(), builder.create_builder_config()
    _configure(trt, builder, config, options)
    changed = {
        name: config.get_flag(flag)
        for name, flag in trt.BuilderFlag.__members__.items()
        if config.get_flag(flag) != default.get_flag(flag)
    }
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"graph")
    key = engine_key(graph, options, "tensorrt-rtx", str(trt.__version__))
    assert changed == key["builder_flags"]
    assert config.get_flag(trt.BuilderFlag.TF32) == (precision != "fp32")


def test_an_engine_built_with_other_flags_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"graph")
    options = EngineOptions("fp32", target="sm_86")
    today = engine_key(graph, options, "tensorrt-rtx", "1.7.1")
    assert today["builder_flags"] == {"REQUIRE_USER_ALLOCATION": True, "TF32": False}
    assert builder_flags("tensorrt", options) == {}
    monkeypatch.setattr("taidpt.export.engines.builder.builder_flags", lambda *_: {"TF32": True})
    assert fingerprint(engine_key(graph, options, "tensorrt-rtx", "1.7.1")) != fingerprint(today)

"""Processes in which a stub stands for NVIDIA's driver and for TensorRT."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from taidpt.runtime.backends.engine_files import PLUGIN_KEY, fingerprint
from taidpt.runtime.backends.trusted_engines import trust
from taidpt.runtime.bundle.bundle import MODEL_FILE, Bundle, BundleWriter
from tests.support import REPOSITORY, require

STUBS = REPOSITORY / "tests" / "runtime" / "stubs"


@dataclass(frozen=True)
class StubMachine:
    """Where the built stub lies, and what the stub driver wrote down."""

    folder: Path

    @property
    def calls(self) -> list[str]:
        """What the driver was asked, in order."""
        return (self.folder / "calls").read_text().splitlines()

    def run(
        self, code: str, arguments: Sequence[object] = (), environment: Mapping[str, str] = {}
    ) -> str:
        """Run code in a process with the stubs; what it printed."""
        (self.folder / "calls").write_text("")
        paths = os.pathsep.join([str(STUBS), os.environ.get("PYTHONPATH", str(REPOSITORY))])
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "LD_LIBRARY_PATH": str(self.folder),
                "STUB_CUDA_LOG": str(self.folder / "calls"),
                **environment,
            },
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def build_stub(folder: Path) -> StubMachine:
    """Compile the stub driver; skips where there is no C compiler or no cuda-bindings."""
    import importlib.util

    there = importlib.util.find_spec("cuda") is not None
    require("cuda-bindings", there, "pip install cuda-bindings")
    name = "libcuda.so.1"
    _compile(STUBS / "libcuda.c", folder / name, "-O1", f"-Wl,-soname,{name}", "-ldl")
    return StubMachine(folder)


def build_library(folder: Path, code: str) -> Path:
    """Compile C code to a shared library; skips where there is no compiler."""
    source, library = folder / "library.c", folder / "library.so"
    source.write_text(code)
    _compile(source, library)
    return library


def _compile(source: Path, library: Path, *options: str) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    require("c++", compiler is not None, "no C compiler")
    command = [str(compiler), "-shared", "-fPIC", str(source), "-o", str(library), *options]
    subprocess.run(command, check=True)


def add_stub_engine(
    path: Path,
    batch: tuple[int, int, int] = (1, 1, 4),
    trusted: bool = True,
    content: bytes | None = None,
    **key: object,
) -> Path:
    """Put a "TensorRT engine" that names the bundle's own ONNX file into a bundle."""
    bundle = Bundle.load(path)
    graph = bundle.file(MODEL_FILE)
    document = {
        "schema": 1,
        "flavour": "tensorrt",
        "version": "10.3.0",
        "architecture": "sm_87",
        "graph_sha256": bundle.manifest.files[MODEL_FILE].sha256,
        "precision": "fp32",
        "batch": list(batch),
        **key,
    }
    name = f"engines/{document['flavour']}-{document['precision']}-{fingerprint(document)}"
    if content is None:
        plugin = PLUGIN_KEY in document
        engine = {"onnx": str(graph), "batch": list(batch), "plugin": plugin}
        content = json.dumps(engine).encode()
    with BundleWriter(path, base=path) as writer:
        writer.write(f"{name}.engine", content)
        writer.write(f"{name}.json", json.dumps(document).encode())
        writer.commit(bundle.manifest)
    if trusted:
        trust(path / f"{name}.engine")
    return path / f"{name}.engine"

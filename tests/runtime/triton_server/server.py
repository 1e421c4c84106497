"""A real Triton Inference Server on loopback: the one in the wheel of nvidia-pytriton.

Its Python backend runs the Python of build/triton, an environment of its own, because that backend
needs NumPy 1.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import REPOSITORY, require

__all__ = ["Server", "require_server", "serving"]

ENVIRONMENT = REPOSITORY / "build" / "triton"
_START_S = 120.0
# What the server ends with where other work keeps its models' processes from starting in time.
_STARTS = 3
_SLOW = "boost::interprocess::lock_exception"
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
_SITE = ENVIRONMENT / "lib" / f"python{_VERSION}" / "site-packages"


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        process: the server.
        port: of gRPC, on 127.0.0.1.
        log: its output.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path


def require_server() -> None:
    """Skip or fail without the server and its client."""
    stub = _SITE / "pytriton" / "tritonserver" / "python_backend_stubs" / _VERSION
    with contextlib.suppress(ImportError):
        import tritonclient.grpc  # noqa: F401

        require("tritonserver", stub.is_dir(), f"no server in {ENVIRONMENT}; see .ci/run")
        return
    require("tritonserver", False, "tritonclient is not installed: pip install 'taidpt[fleet]'")


@contextlib.contextmanager
def serving(models: Path, folder: Path, port: int | None = None) -> Iterator[Server]:
    """Start the server on a repository, wait until all models are ready, and end it.

    Args:
        models: the repository.
        folder: where backends and the log go.
        port: of gRPC; None: any that is free.
    """
    home = _SITE / "pytriton" / "tritonserver"
    backends = folder / "backends"
    if not backends.exists():
        shutil.copytree(home / "backends", backends)
        stub = home / "python_backend_stubs" / _VERSION / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        (backends / "python" / stub.name).chmod(0o755)
    http, grpc = _free_port(), port or _free_port()
    program = home / "bin" / "tritonserver"
    program.chmod(0o755)
    command = [program, "--model-repository", models, "--backend-directory", backends]
    command += ["--http-address", "127.0.0.1", "--grpc-address", "127.0.0.1"]
    # explicit: a test may replace a model without another start, which takes seconds
    command += ["--model-control-mode", "explicit", "--load-model", "*"]
    command += ["--http-port", str(http), "--grpc-port", str(grpc), "--allow-metrics", "false"]
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(_SITE / "nvidia_pytriton.libs"),
    }
    log = folder / f"server-{grpc}.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("wb") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    process = start()
    try:
        for _ in range(_STARTS):
            if _is_ready(process, http, log):
                break
            process = start()
        else:
            raise AssertionError(log.read_text("utf-8", "replace")[-4000:])
        yield Server(process, grpc, log)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()


def _is_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    """Wait for the server; False if a model's process took longer than the server's own 10 s."""
    until = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            url = f"http://127.0.0.1:{port}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return True
        if process.poll() is not None:
            text = log.read_text("utf-8", "replace")
            assert _SLOW in text, text[-4000:]
            return False
        assert time.monotonic() < until, log.read_text("utf-8", "replace")[-4000:]
        time.sleep(0.05)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])

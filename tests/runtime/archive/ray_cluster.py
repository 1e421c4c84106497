"""A real Ray of one node on this machine, which also starts while other tests take the cores."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import require

__all__ = ["Cluster", "ray_cluster"]

# Ray's raylet waits 15 s for the files in which its agents name their ports, and then ends; agents
# take 3 s of CPU time to start (github.com/ray-project/ray/issues/65983). So these files are there
# before: "-1" says that a service is not used. They are named after the node.
_NODE = "ab" * 28
_PORT_FILES = ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port")
_PATIENCE_S = 90
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # or a token is written into the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _NODE,
    "RAY_agent_register_timeout_ms": "120000",
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        address: what `--ray` takes.
        pid: the process from which all others descend.
    """

    address: str
    pid: int

    def processes(self, name: str) -> list[int]:
        """Processes whose command line begins with `ray::` and holds a name."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
                if line.startswith(b"ray::") and name.encode() in line and self._is_ours(folder):
                    found.append(int(folder.name))
        return sorted(found)

    def _is_ours(self, folder: Path) -> bool:
        pid = int(folder.name)
        while pid > 1 and pid != self.pid:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return pid == self.pid


@contextlib.contextmanager
def ray_cluster(cores: int) -> Iterator[Cluster]:
    """A cluster with some cores; it ends with the `with`."""
    require("ray", importlib.util.find_spec("ray") is not None, "pip install 'taidpt[ray]'")
    # not pytest's folder: paths of sockets have at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    head, *others = _free_ports(5)
    names = ("dashboard-agent-grpc", "runtime-env-agent", "metrics-export", "ray-client-server")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += [f"--port={head}", f"--num-cpus={cores}", f"--temp-dir={folder}"]
    # without what a test does not need: each is a process that imports Ray
    command += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--no-monitor"]
    command += ["--include-log-monitor=false"]
    command += [f"--{name}-port={port}" for name, port in zip(names, others, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _ENVIRONMENT.items():
            patch.setenv(name, value)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            _wait(process, folder)
            patch.delenv("RAY_OVERRIDE_NODE_ID_FOR_TESTING")
            yield Cluster(f"127.0.0.1:{head}", process.pid)
        finally:
            _end(process)
            shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the node runs; write the files that its raylet waits for."""
    deadline = time.monotonic() + _PATIENCE_S
    while "Ray runtime started" not in (text := (folder / "log").read_text("utf-8", "replace")):
        for session in folder.glob("session_2*"):
            for name in _PORT_FILES:
                path = session / f"{name}_{_NODE}"
                if not path.exists():
                    path.write_text("-1")
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"Ray did not start: {text[-2000:]}", pytrace=False)
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the processes that Ray has started: they are of the session of the first."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]

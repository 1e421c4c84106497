"""Any GStreamer pipeline as a source: a `gst-launch-1.0` child whose frames come by a pipe.

It needs no Python binding, so it gives a Jetson's hardware decoder and CSI cameras to any Python:
`gst:nvarguscamerasrc ! nvvidconv ! video/x-raw,width=1280,height=720`.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
from typing import Any

from taidpt.runtime.errors import MissingDependencyError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.base import Source, SourceOptions
from taidpt.runtime.sources.live_stream import LiveSource, ReconnectPolicy
from taidpt.runtime.sources.video_file import import_av

__all__ = ["GStreamerSource", "launch_command", "open_pipeline"]

# Matroska carries size and times of raw frames through a pipe; Y4M would lose the times.
_TAIL = "! videoconvert ! video/x-raw,format=I420 ! matroskamux streamable=true ! fdsink fd=1"
_KILL_AFTER_S = 2.0


def launch_command(text: str) -> list[str]:
    """The child's command line for `gst:PIPELINE`."""
    pipeline = text.removeprefix("gst:").strip().rstrip("!").strip()
    return ["gst-launch-1.0", "-q", *shlex.split(pipeline), *shlex.split(_TAIL)]


class GStreamerSource(LiveSource):
    """A pipeline's frames; the child is started again when it ends in error."""

    def __init__(
        self, text: str, options: SourceOptions, policy: ReconnectPolicy | None = None
    ) -> None:
        """Start the pipeline.

        Raises:
            MissingDependencyError: gst-launch-1.0 is not installed.
            InputError: the pipeline does not start.
        """
        if shutil.which("gst-launch-1.0") is None:
            raise MissingDependencyError(
                f"{redact(text)}: needs gst-launch-1.0; on Debian, Ubuntu and a Jetson: "
                "apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
            )
        self._command = launch_command(text)
        self._child: subprocess.Popen[bytes] | None = None
        super().__init__(text, options, policy, self._start)

    def close(self) -> None:
        """End the child, which also ends a read that waits for it."""
        super().close()
        self._end_child()

    def _start(self) -> Any:
        self._end_child()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for us; the child is ended in order
        )
        self._child = child
        assert child.stdout is not None  # asked for in the line above
        try:
            return import_av().open(child.stdout, format="matroska")
        except Exception as error:
            raise OSError(self._complaint(child) or str(error)) from None

    def _has_ended(self) -> bool:
        """A pipeline that came to its own end is done; one that failed is started again."""
        child = self._child
        if child is None:
            return True
        try:
            return child.wait(_KILL_AFTER_S) == 0
        except subprocess.TimeoutExpired:
            return False

    def _complaint(self, child: subprocess.Popen[bytes]) -> str:
        """The first error line of a child that did not start."""
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_KILL_AFTER_S)
        self._errors.seek(0)
        text = self._errors.read(10_000).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        wrong = [line for line in lines if "ERROR" in line or "erroneous" in line] or lines
        return wrong[0] if wrong else ""

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._errors.close()


def open_pipeline(text: str, options: SourceOptions) -> Source:
    """Open `gst:PIPELINE`."""
    return GStreamerSource(text, options)

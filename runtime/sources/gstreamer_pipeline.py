"""Any GStreamer pipeline as a source: a `gst-launch-1.0` child whose frames arrive by a pipe.

It needs no Python binding, so any Python can use a Jetson's hardware decoder and CSI cameras:
`gst:nvarguscamerasrc ! nvvidconv ! video/x-raw,width=1280,height=720`.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
from typing import Any

from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.address import Address
from taidpt.runtime.sources.base import Source, SourceOptions
from taidpt.runtime.sources.decoder import Decoder
from taidpt.runtime.sources.live_stream import LiveSource
from taidpt.runtime.sources.video_file import VideoSource, import_av

__all__ = ["Pipeline", "launch_command", "open_pipeline"]

# Matroska carries size and times of raw frames through a pipe; Y4M would lose the times.
_TAIL = "! videoconvert ! video/x-raw,format=I420 ! matroskamux streamable=true ! fdsink fd=1"
# How long a child may take to end by itself, for instance to release a camera.
_KILL_AFTER_S = 2.0
# Pipelines that read files: elements by name, and `uri=` of a file.
_FILE = re.compile(
    r"""(?:^|[\s!])(?:filesrc|multifilesrc|splitfilesrc|splitmuxsrc)\b|\buri\s*=\s*["']?file:""",
    re.IGNORECASE,
)


def launch_command(pipeline: str) -> list[str]:
    """The child's command line for a pipeline.

    Raises:
        InputError: a quotation mark is not closed.
    """
    try:
        elements = shlex.split(pipeline.rstrip().rstrip("!"))
    except ValueError as error:
        raise InputError(f"gst: the pipeline cannot be read: {error}") from None
    return ["gst-launch-1.0", "-q", *elements, *shlex.split(_TAIL)]


def open_pipeline(address: Address, options: SourceOptions) -> Source:
    """Open a pipeline: one that reads files is a video that ends, any other is live.

    Raises:
        MissingDependencyError: gst-launch-1.0 is not installed.
        InputError: the pipeline does not start.
    """
    if shutil.which("gst-launch-1.0") is None:
        raise MissingDependencyError(
            f"{address.name}: needs gst-launch-1.0; on Debian, Ubuntu and a Jetson: "
            "apt install gstreamer1.0-tools gstreamer1.0-plugins-good"
        )
    pipeline = Pipeline(launch_command(address.text))
    if _FILE.search(address.text):
        return PipelineFile(address, options, pipeline)
    return PipelineStream(address, options, pipeline)


class Pipeline:
    """The child process of a pipeline; it is started again after every `end`."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> Any:
        """Start the child and open its frames as a PyAV container.

        Raises:
            OSError: it ends at once; the message is the child's own.
        """
        self.end()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for this process, which ends the child in order
        )
        self.child = child
        assert child.stdout is not None  # requested by PIPE
        try:
            return import_av().open(child.stdout, format="matroska")
        except Exception as error:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_KILL_AFTER_S)
            raise OSError(self.complaint() or str(error)) from None

    def has_ended(self) -> bool:
        """Whether the pipeline came to its own end, in contrast to failing."""
        if self.child is None:
            return True
        try:
            return self.child.wait(_KILL_AFTER_S) == 0
        except subprocess.TimeoutExpired:
            return False

    def complaint(self) -> str:
        """The child's first error line without credentials, or an empty text."""
        self._errors.seek(0)
        text = self._errors.read(10_000).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        wrong = [line for line in lines if "ERROR" in line or "erroneous" in line] or lines
        return redact(wrong[0]) if wrong else ""

    def end(self) -> None:
        """End the child, which also ends a read that waits for it; may be called twice."""
        child, self.child = self.child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._errors.close()


class PipelineStream(LiveSource):
    """A live pipeline; it is started again if it ends in an error."""

    def __init__(self, address: Address, options: SourceOptions, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        try:
            super().__init__(address, options, None, pipeline.start, pipeline.has_ended)
        except BaseException:
            pipeline.end()
            raise

    def close(self) -> None:
        """End the stream and its child."""
        super().close()
        self.pipeline.end()


class PipelineFile(VideoSource):
    """A pipeline that reads files: no frame is dropped, and its end is the end."""

    def __init__(self, address: Address, options: SourceOptions, pipeline: Pipeline) -> None:
        super().__init__(address, options, pipeline.start)
        self.pipeline = pipeline

    def close(self) -> None:
        """Close the video and end its child."""
        super().close()
        self.pipeline.end()

    def _refuse_cut_file(self, decoder: Decoder, count: int) -> None:
        if not self.pipeline.has_ended():
            raise InputError(
                f"{self.name}: the pipeline failed after {count} frames, which were used: "
                f"{self.pipeline.complaint() or 'it gave no reason'}"
            )

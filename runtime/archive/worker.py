"""A process that reads clips, and can be killed: decoders hang, and take the process with them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from taidpt.runtime.archive.clip_tagger import ClipEnd, ClipTagger, ClipWork, Crops, CropTagger
from taidpt.runtime.archive.inputs import Clip
from taidpt.runtime.archive.request import ArchiveJob
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import BackendError, InputError, TaidptError
from taidpt.runtime.storage.temporary_folder import TemporaryFolder
from taidpt.runtime.tag.terminal import log_to_stderr

__all__ = ["ClipWorker", "main"]

_START = "from taidpt.runtime.archive.worker import main; main()"


class ClipWorker(Closing):
    """Reads clips in a process of its own, which is started when needed, and again if it ends.

    Another thread may close it at any time.
    """

    def __init__(
        self,
        job: ArchiveJob,
        environment: Mapping[str, str] | None = None,
        kind: Callable[[ArchiveJob], ClipWork | CropTagger] = ClipTagger,
    ) -> None:
        """Prepare; the process starts with the first clip.

        Args:
            job: what is asked of each clip.
            environment: variables of the process beside those of this one.
            kind: what the process does with a clip.
        """
        self._job, self._kind = job, kind
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._scratch: TemporaryFolder | None = None
        self._closed = False

    def work(self, clip: Clip | Crops) -> Iterator[Any]:
        """Yield the messages of the kind's `work`, the last a `ClipEnd`.

        A clip at which the process ends, or gives no sign of life for the deadline, ends with an
        error of its own.

        Raises:
            TaidptError: the process cannot tag at all: the bundle, the bank or the device.
        """
        connection = self._connected()
        frames = 0
        with contextlib.suppress(OSError):  # one that has ended is noticed below
            connection.send(clip)
        while True:
            try:
                if not connection.poll(self._job.deadline_s):
                    self._end()
                    reason = f"no frame within {self._job.deadline_s:g} s; {clip.what_hangs} hangs"
                    yield ClipEnd(frames, None, error=f"{clip.name}: {reason}")
                    return
                message = connection.recv()
            except (EOFError, OSError):
                reason = self._how_it_ended()
                self._refuse_closed()
                yield ClipEnd(frames, None, error=f"{clip.name}: {reason}")
                return
            if isinstance(message, TaidptError):
                raise message
            yield message
            if isinstance(message, ClipEnd):
                return
            frames += len(message)

    def close(self) -> None:
        """End the process at once; a thread that waits for it gets an InputError."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
            process.wait()
        self._remove_scratch()

    def _remove_scratch(self) -> None:
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise InputError("the run was ended")

    def _connected(self) -> Connection:
        if self._connection is not None:
            assert self._process is not None
            if self._process.poll() is None:
                return self._connection
            self._end()  # it was killed between two clips
        self._refuse_closed()
        ours, theirs = Pipe()
        self._scratch = _temporary_folder()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs.fileno()), str(self._scratch.path)],
            stdin=subprocess.PIPE,  # its end is what tells the process that this one has ended
            env={**self._environment, "TMPDIR": str(self._scratch.path)},
            pass_fds=(theirs.fileno(),),
        )
        theirs.close()
        self._connection = ours
        if self._closed:  # by another thread, which did not see this process yet
            self._process.kill()
        try:
            ours.send((self._kind, self._job))
            answer = ours.recv()
        except (EOFError, OSError):
            reason = self._how_it_ended()
            self._refuse_closed()
            raise BackendError(f"a worker could not start: {reason}") from None
        if isinstance(answer, TaidptError):
            self._end()
            raise answer
        return ours

    def _how_it_ended(self) -> str:
        process = self._process
        assert process is not None
        code = process.wait()
        self._end()
        if code < 0:
            name = signal.Signals(-code).name
            return f"it ended the worker with {name}" + (
                ", as the system does when memory is short" if name == "SIGKILL" else ""
            )
        return f"it ended the worker with exit code {code}"

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._remove_scratch()
        if connection is not None:
            connection.close()


def _temporary_folder() -> TemporaryFolder:
    try:
        return TemporaryFolder(Path(tempfile.gettempdir()), "taidpt-archive-", 0o700)
    except OSError as error:
        raise BackendError(
            f"a worker could not start: no folder for temporary files: {error.strerror}; set TMPDIR"
        ) from None


def main() -> None:
    """The process: a job, then clips come from the connection that the command line names."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the parent ends us
    try:
        _serve(Connection(int(sys.argv[1])))
    finally:
        shutil.rmtree(sys.argv[2], ignore_errors=True)


def _serve(connection: Connection) -> None:
    with contextlib.suppress(EOFError, BrokenPipeError), log_to_stderr(logging.WARNING):
        kind, job = connection.recv()
        try:
            work = kind(job).work
        except TaidptError as error:
            connection.send(error)
            return
        connection.send("ready")
        while True:
            clip = connection.recv()
            try:
                for message in work(clip):
                    connection.send(message)
            except TaidptError as error:
                connection.send(error)
                return


def _end_with_parent() -> None:
    """End this process when its standard input does, even while a decoder hangs."""
    with contextlib.suppress(OSError):
        sys.stdin.buffer.read()
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(1)

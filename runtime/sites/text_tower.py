"""New tags by name, made by a text tower in a process of its own, which stays warm for minutes.

The text tower takes seconds to load and a gigabyte of memory. In another process it neither delays
the tagging nor stays in memory for ever.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.runtime.tagger.active_bank import check_fit, check_swappable

__all__ = ["TextTower"]

# By name, because the runtime must not import export.
_PROGRAM = "taidpt.export.classes.names_process"
# Loading PyTorch and a model takes 11 s of CPU here; minutes on a busy board with a slow card.
_LONGEST_S = 300.0
# Long enough to add tag after tag and to look at the cameras in between.
_IDLE_S = 300.0
# Below the priority of tagging.
_NICE = 5


class TextTower(Closing):
    """Makes banks of names for one bundle.

    Attributes:
        state: "off", "loading" or "ready".
        failure: why the last try to load it failed; empty where it did not.
        on_change: called after each change of the state, by any thread.
    """

    def __init__(self, bundle: Bundle, prompts: str | None, idle_s: float = _IDLE_S) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            bundle: its bank must be an input of the graph.
            prompts: prompts file whose contexts are used; None: the bundle's templates.
            idle_s: the process ends when no name was asked for in so many seconds.
        """
        self.state, self.failure = "off", ""
        self.on_change: Callable[[], None] = lambda: None
        self._bundle, self._source = bundle, prompts or str(bundle.path)
        self._idle_s = idle_s
        self._asking = threading.Lock()  # one request at a time
        self._changing = threading.RLock()
        self._process: _Process | None = None
        self._idle: threading.Timer | None = None

    def warm(self) -> None:
        """Begin to load it, unless it is loaded; returns at once.

        Raises:
            InputError: the bundle's bank is a constant.
        """
        self._running()

    def bank(self, names: Sequence[str]) -> ClassBank:
        """The bank of new names.

        Args:
            names: C names.
        Raises:
            InputError: the bundle's bank is a constant, the text tower cannot be loaded, or the
                names cannot be used.
        """
        with self._asking, tempfile.TemporaryDirectory() as folder:
            made = Path(folder, "made.bank")
            try:
                self._running().ask({"names": list(names), "output": str(made)})
            finally:
                self._wait_for_names()
            return check_fit(ClassBank.load(made), self._bundle, "the new tags")

    def close(self) -> None:
        """End the process."""
        with self._changing:
            process, self._process = self._process, None
            if self._idle is not None:
                self._idle.cancel()
        if process is not None:
            process.close()
            self._change("off")

    def _running(self) -> _Process:
        """The process, which is started unless it runs."""
        check_swappable(self._bundle)
        with self._changing:
            if self._process is None:
                self._process = _Process(self._source, self._heard)
                self._change("loading")
            self._wait_for_names()
            return self._process

    def _wait_for_names(self) -> None:
        """Begin to count the idle seconds anew."""
        with self._changing:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = threading.Timer(self._idle_s, self._end_idle)
            self._idle.daemon = True
            self._idle.start()

    def _end_idle(self) -> None:
        if self._asking.acquire(blocking=False):
            try:
                self.close()
            finally:
                self._asking.release()

    def _heard(self, process: _Process, failure: str | None) -> None:
        """The process is loaded, or has ended with a reason; called in its own thread."""
        with self._changing:
            if process is not self._process:
                return
            if failure is None:
                self._change("ready")
                return
            self._process = None
        process.close()
        self._change("off", failure)

    def _change(self, state: str, failure: str = "") -> None:
        self.state, self.failure = state, failure
        self.on_change()


class _Process:
    """The process, and a thread that reads its answers."""

    def __init__(self, source: str, heard: Callable[[_Process, str | None], None]) -> None:
        """Start it.

        Args:
            source: a prompts file or a bundle.
            heard: called when it is loaded, with None, and when it ends, with the reason.
        """
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._heard = heard
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._child = subprocess.Popen(
            # `nice`, because code before exec may hang beside threads
            ["nice", "-n", str(_NICE), sys.executable, "-m", _PROGRAM, source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self._child.stdin is not None
        self._input = self._child.stdin
        threading.Thread(
            target=self._listen, args=(self._child.stdout,), daemon=True, name="text tower"
        ).start()

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request and wait for its answer; InputError if it is a refusal, or none comes."""
        with contextlib.suppress(OSError, ValueError):  # where it has ended, the answer says why
            self._input.write(json.dumps(request).encode() + b"\n")
            self._input.flush()
        try:
            failure = self._answers.get(timeout=_LONGEST_S)
        except queue.Empty:
            self.close()
            raise InputError(f"the text tower gave no answer in {_LONGEST_S:.0f} s") from None
        if failure is not None:
            raise InputError(failure)

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        with contextlib.suppress(OSError):
            self._input.close()

    def _listen(self, answers: IO[bytes]) -> None:
        """Read answers until it ends; the first one says whether it is loaded."""
        is_loaded, reason = False, ""
        with answers:
            for line in answers:
                error = parse_json(line)["error"]
                if is_loaded:
                    self._answers.put(error)
                elif error is None:
                    is_loaded = True
                    self._heard(self, None)
                else:
                    reason = error
        reason = reason or self._last_words()
        self._answers.put(reason)
        self._heard(self, reason)

    def _last_words(self) -> str:
        with self._log:
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f"the text tower ended: {lines[-1] if lines else 'no reason given'}"

"""Ends a process that does not react to Ctrl-C or SIGTERM.

Python runs signal handlers between two bytecodes of the main thread, where a graph that loops for
ever or a driver that hangs never returns. So a thread watches the signals, and ends the process
where the handlers had no effect. It needs the interpreter lock, which ONNX Runtime, PyAV and ctypes
(the CUDA driver) release in their calls. A library that hangs while it holds the lock can be ended
by SIGKILL alone: no exit code of ours can be set from outside the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import NoReturn

__all__ = ["EXIT_CODES", "end_process", "watch_signals"]

# Signal → word and exit code: 128 and the signal's number, as shells report it.
EXIT_CODES = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("terminated", 143)}
# A command that can end needs a batch or a request to end in; service managers wait 10 s as well
# (docker stop) or longer (systemd: 90 s) before they kill.
_GRACE_S = 10.0
# `timeout` of coreutils sends each signal twice, to the process and to its group: repeats within
# this time are the same wish.
_REPEAT_S = 0.5
_NAME = "taidpt-watchdog"


def watch_signals() -> None:
    """End the process at a second SIGINT or SIGTERM, or 10 seconds after the first.

    To be called in the main thread. Handlers of these signals work as before.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name=_NAME, daemon=True).start()


def end_process(code: int) -> NoReturn:
    """End with this exit code, also while another thread is inside a library.

    Python's own end would unload libraries under such a thread, which then aborts the process
    ("terminate called", exit code −6). Standard output must be flushed before.
    """
    if any(_may_be_stuck(thread) for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


def _may_be_stuck(thread: threading.Thread) -> bool:
    ours = thread is threading.current_thread() or thread.name == _NAME
    # tqdm's monitor sleeps in Python
    return thread.daemon and not ours and type(thread).__name__ != "TMonitor"


def _watch(reader: int) -> None:
    first: float | None = None
    number = signal.SIGTERM
    while True:
        left = None if first is None else max(first + _GRACE_S - time.monotonic(), 0.0)
        if not select.select([reader], [], [], left)[0]:
            break
        arrived = [byte for byte in os.read(reader, 64) if byte in EXIT_CODES]
        if not arrived:
            continue
        number = signal.Signals(arrived[-1])
        if first is None:
            first = time.monotonic()
        elif time.monotonic() - first > _REPEAT_S:
            break
    word, code = EXIT_CODES[number]
    with contextlib.suppress(OSError, ValueError):
        os.write(2, f"{word}; what was running did not end by itself\n".encode())
    os._exit(code)

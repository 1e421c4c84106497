"""`LIBRARY < calls.json`: make calls of the C library beside the stub driver, print what it saw.

A call is {"environment": {…}, "prepare": device} or {"environment": {…}, "arguments": {…}}, for the
second read-out with "workspace": address; an answer {"status": …, "message": …, "driver": [lines],
"pushed": contexts left current}.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

from tests.kernels.native_interface import Arguments, declared


def make(library: ctypes.CDLL, stub: ctypes.CDLL, call: dict[str, Any]) -> dict[str, Any]:
    """One call's answer."""
    before = dict(os.environ)
    os.environ.update(call["environment"])
    stub.stub_clear()
    if "prepare" in call:
        status = library.taidpt_prepare(call["prepare"])
    elif "workspace" in call:
        arguments = ctypes.byref(Arguments(**call["arguments"]))
        status = library.taidpt_competing_similarity(arguments, call["workspace"])
    else:
        status = library.taidpt_local_similarity(ctypes.byref(Arguments(**call["arguments"])))
    for name in call["environment"]:
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]
    return {
        "status": status,
        "message": library.taidpt_last_error().decode(),
        "driver": stub.stub_calls().decode().splitlines(),
        "pushed": stub.stub_pushed(),
    }


def main() -> None:
    """Answers as one line of JSON."""
    library = declared(ctypes.CDLL(sys.argv[1]))
    stub = ctypes.CDLL("libcuda.so.1")
    stub.stub_calls.restype = ctypes.c_char_p
    print(json.dumps([make(library, stub, call) for call in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()

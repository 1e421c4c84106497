"""Banks of names for `taidpt serve`: a process whose text tower stays loaded.

    python -m taidpt.export.classes.names_process PROMPTS|BUNDLE

Each line of standard input is a request, {"names": [...], "output": FILE}, and is answered by a
line of standard output, {"error": null} or {"error": "one line"}. The first line says whether the
text tower is loaded. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from taidpt.export.classes.bank_job import BankRequest, open_maker
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.texts.tags import TagSet


def main(source: str) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(work: Callable[[], None]) -> bool:
        error = None
        try:
            work()
        except (TaidptError, OSError) as failure:
            error = str(failure)
        print(json.dumps({"error": error}), file=answers, flush=True)
        return error is None

    makers = []
    if not answer(lambda: makers.append(open_maker(BankRequest(Path(source))))):
        return
    (maker,) = makers

    def make(line: str) -> None:
        request = parse_json(line)
        tags = TagSet.from_names(request["names"])
        maker.make(tags, maker.choices[0]).save(request["output"])

    for line in sys.stdin:
        answer(lambda line=line: make(line))  # type: ignore[misc]


if __name__ == "__main__":
    main(sys.argv[1])

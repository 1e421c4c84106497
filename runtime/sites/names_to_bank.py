"""New tags by name, made by `taidpt bank make` in a process of its own.

The text tower takes seconds to load and a gigabyte of memory. In another process it neither delays
the tagging nor stays in memory afterwards.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.active_bank import check_fit, check_swappable

__all__ = ["names_to_bank"]

# Loading PyTorch and a model takes 11 s of CPU here; minutes on a busy board with a slow card.
_LONGEST_S = 300
# Below the priority of tagging.
_NICE = 5


def names_to_bank(names: Sequence[str], bundle: Bundle, prompts: str | None) -> ClassBank:
    """The bank of new names for a bundle.

    Args:
        names: C names.
        bundle: its bank must be an input of the graph.
        prompts: prompts file whose contexts are used; None: the bundle's templates.
    Raises:
        InputError: the bundle's bank is a constant, or the bank cannot be made; the message is
            that of `taidpt bank make`.
    """
    check_swappable(bundle)
    with TemporaryDirectory() as folder:
        tags, made = Path(folder, "names.txt"), Path(folder, "made.bank")
        tags.write_text("\n".join(names) + "\n", "utf-8")
        source = prompts or str(bundle.path)
        command = [sys.executable, "-m", "taidpt", "bank", "make", source]
        _run([*command, "--tags", str(tags), "-o", str(made)])
        return check_fit(ClassBank.load(made), bundle, prompts or "the new tags")


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            ["nice", "-n", str(_NICE), *command],  # code before exec may hang beside threads
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"the text tower gave no answer in {_LONGEST_S} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise InputError(lines[-1].removeprefix("error: "))

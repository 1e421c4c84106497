"""The state of a tuning run in one small file, from which a killed run resumes exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.json_reader import JsonReader, parse_json
from taidpt.runtime.storage.regular_file import open_regular

__all__ = ["Checkpoint"]

_KIND = "taidpt-checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """The state after a step.

    Attributes:
        tensors: contexts and momentum buffers by name.
        epoch: epoch of the next step, from 0.
        step: number of the next step in its epoch.
        losses: mean loss of each finished epoch, then the running sum of the current one.
        run: identity of the run (model, tags, texts, settings), which a resumed run must match.
    """

    tensors: Mapping[str, Tensor]
    epoch: int
    step: int
    losses: tuple[float, ...]
    run: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write the file in one step: temporary file, fsync, rename.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors.torch import save

        header = {
            "kind": _KIND,
            "epoch": self.epoch,
            "step": self.step,
            # hexadecimal keeps every bit, whichever JSON writer is used
            "losses": [value.hex() for value in self.losses],
            "run": dict(self.run),
        }
        tensors = {name: value.contiguous() for name, value in self.tensors.items()}
        try:
            write_atomically(path, save(tensors, metadata={"taidpt": json.dumps(header)}))
        except OSError as error:
            raise InputError(f"{path}: cannot write the checkpoint: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a checkpoint.
        """
        from safetensors import SafetensorError, safe_open

        try:
            open_regular(path).close()  # safetensors would wait for a pipe's writer
            with safe_open(path, framework="pt") as stream:
                header = JsonReader(parse_json((stream.metadata() or {})["taidpt"]), str(path))
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            header.choice("kind", (_KIND,))
            losses = tuple(float.fromhex(value) for value in header.strings("losses"))
            place = header.integer("epoch"), header.integer("step")
            return cls(tensors, *place, losses, header.child("run").document)
        except (SafetensorError, OSError, ValueError, KeyError, BundleError) as error:
            raise InputError(
                f"{path}: cannot resume from this checkpoint ({error}); start again with --restart"
            ) from None

    def check_run(self, run: Mapping[str, Any], path: Path) -> None:
        """Raise InputError, naming the differences, unless the checkpoint belongs to this run."""
        changed = [key for key in run if self.run.get(key) != run[key]]
        if changed:
            raise InputError(
                f"{path} is a checkpoint of another run: {', '.join(changed)} differ; use the "
                "options and files of that run, or --restart to start again"
            )

"""The operations on tags: list, add, rename, remove, thresholds, whole banks, undo."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from starlette.responses import Response

from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import InputError, TaidptError
from taidpt.runtime.serve.operations import Answer, Call, Operation, RefusedError
from taidpt.runtime.serve.schema import Schema, array, integer, nullable, number, object_of, text
from taidpt.runtime.serve.uploads import PICTURES, decode_pictures
from taidpt.runtime.sites.bank_edits import BankEdits
from taidpt.runtime.sites.site import Site
from taidpt.runtime.tagger.active_bank import check_swappable

__all__ = ["TagsApi"]

# The text tower needs PyTorch and open_clip; without them names cannot be added.
_TOWER = ("torch", "open_clip")
# Points of the curve that a slider uses: one percent is finer than a person moves it.
_QUANTILES = 101

# A name is a line of visible letters.
NAME = text("The tag's name.", 200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")
_SCORE = number("A score.", minimum=-1e6, maximum=1e6)
_TAG = object_of(
    name=text("The tag's name."),
    on=number("The score that turns it on."),
    off=number("The score below which it turns off."),
    source=text("Where the threshold comes from."),
)
_EDIT = object_of(
    number=integer("Its bank's number.", 0, 2**53 - 1),
    at=number("Seconds since 1970."),
    what=text("What was changed.", 100_000),
)
_BANK = object_of(
    tags=integer("Number of tags.", 1, 2**53 - 1),
    can_add={"type": "boolean", "description": "Whether tags can be added and removed at all."},
    can_add_names={"type": "boolean", "description": "Whether names can be added here."},
    why_not=nullable(text("Why they cannot, and what to do.", 2000)),
    edits=array(_EDIT, "The edits that can be undone, the newest first."),
)
_LIMIT = integer("How many at most.", 1, 100_000, default=1000)
_WHICH = {"tag": {**NAME, "x-required": True}}
_BYTES: Schema = {"type": "string", "format": "binary"}


class TagsApi:
    """The operations on the tags of a site."""

    def __init__(self, site: Site, edits: BankEdits) -> None:
        self._site, self._edits = site, edits

    def operations(self) -> list[Operation]:
        """The table."""
        bank = Answer("The bank after it.", _BANK)
        file = "application/octet-stream"
        return [
            Operation(
                *("GET", "/v1/tags", "tags", "All tags with their thresholds.", self._tags),
                Answer("The tags, in the bank's order.", object_of(tags=array(_TAG))),
                query={"search": text("Only names that contain this."), "limit": _LIMIT},
            ),
            Operation(
                *("POST", "/v1/tags", "add-tags", "Add tags by name, or those of a bank file."),
                self._add,
                bank,
                body={
                    "application/json": object_of(names=array(NAME, minItems=1, maxItems=100)),
                    file: _BYTES,
                },
                errors=(409, 415, 422),
            ),
            Operation(
                *("PATCH", "/v1/tags", "change-tag", "Rename a tag, or set its threshold."),
                self._change,
                bank,
                query=_WHICH,
                body={"application/json": object_of({"name": NAME, "on": _SCORE, "off": _SCORE})},
                errors=(404, 409, 415),
            ),
            Operation(
                *("DELETE", "/v1/tags", "remove-tag", "Remove a tag.", self._remove, bank),
                query=_WHICH,
                errors=(404, 409),
            ),
            Operation(
                *("POST", "/v1/tags/examples", "add-by-examples", "Add a tag by pictures of it."),
                self._add_by_examples,
                bank,
                body={"application/json": object_of(name=NAME, pictures=PICTURES)},
                errors=(409, 415, 422),
            ),
            Operation(
                *("GET", "/v1/tags/scores", "tag-scores", "A tag's scores in the last hour."),
                self._scores,
                Answer(
                    "Quantiles of the smoothed scores from 0 to 100 %, over all cameras.",
                    object_of(
                        seconds=integer("How many seconds are known.", 0, 2**53 - 1),
                        quantiles=array(number("A score.")),
                    ),
                ),
                query={**_WHICH, "camera": text("One camera's alone.", 64)},
                errors=(404,),
            ),
            Operation("GET", "/v1/bank", "bank", "The bank and its history.", self._bank, bank),
            Operation(
                *("POST", "/v1/bank/undo", "undo", "Undo the last edit.", self._undo, bank),
                errors=(409,),
            ),
            Operation(
                *("GET", "/v1/bank/file", "bank-file", "The bank as a file.", self._file),
                Answer("As `taidpt tag --bank` takes it.", _BYTES, file),
            ),
            Operation(
                *("PUT", "/v1/bank/file", "use-bank", "Use another bank.", self._use, bank),
                body={file: _BYTES},
                errors=(409, 415, 422),
            ),
        ]

    def _tags(self, call: Call) -> dict[str, Any]:
        vocabulary = self._site.tagger.vocabulary
        search = (call.values["search"] or "").lower()
        rows = zip(vocabulary.names, vocabulary.on, vocabulary.off, vocabulary.sources, strict=True)
        found = [
            {"name": name, "on": float(on), "off": float(off), "source": source}
            for name, on, off, source in rows
            if search in name.lower()
        ]
        return {"tags": found[: int(call.values["limit"])]}

    def _add(self, call: Call) -> dict[str, Any]:
        if isinstance(call.body, bytes):
            bank = _bank_of(call.body)
            return self._edited(lambda: self._edits.join(bank))
        names = [name.strip() for name in call.body["names"]]
        return self._edited(lambda: self._edits.add(names))

    def _add_by_examples(self, call: Call) -> dict[str, Any]:
        pictures = decode_pictures(call.body["pictures"])
        moments = [camera.latest for camera in self._site.cameras.values()]
        frames = [moment.frame.picture for moment in moments if moment is not None]
        if not frames:
            raise RefusedError(409, "no camera has given a frame yet, to tell the tag from")
        tagger, name = self._site.tagger, call.body["name"].strip()
        return self._edited(
            lambda: self._edits.join(tagger.bank.from_pictures(name, pictures, frames))
        )

    def _change(self, call: Call) -> dict[str, Any]:
        tag, wanted = self._known(call), call.body

        def change() -> None:
            if "on" in wanted:
                self._edits.set_threshold(tag, wanted["on"], wanted.get("off"))
            if "name" in wanted:
                self._edits.rename(tag, wanted["name"].strip())

        if "off" in wanted and "on" not in wanted:
            raise RefusedError(400, "body.off needs body.on beside it")
        return self._edited(change)

    def _remove(self, call: Call) -> dict[str, Any]:
        tag = self._known(call)
        return self._edited(lambda: self._edits.remove(tag))

    def _scores(self, call: Call) -> dict[str, Any]:
        tag, camera = self._known(call), call.values["camera"]
        if camera is not None and camera not in self._site.cameras:
            raise RefusedError(404, f"there is no camera {camera!r}")
        chosen = [self._site.cameras[camera]] if camera else [*self._site.cameras.values()]
        scores = np.concatenate([one.history.scores(tag) for one in chosen])
        share = np.linspace(0, 1, _QUANTILES)
        quantiles = np.quantile(scores, share).tolist() if len(scores) else []
        return {"seconds": len(scores), "quantiles": quantiles}

    def _bank(self, call: Call) -> dict[str, Any]:
        return self._described()

    def _described(self) -> dict[str, Any]:
        why_not = self._why_not()
        return {
            "tags": len(self._site.tagger.names),
            "can_add": self._site.tagger.bundle.manifest.graph.bank == "input",
            "can_add_names": why_not is None,
            "why_not": why_not,
            "edits": [dataclasses.asdict(edit) for edit in reversed(self._edits.edits[1:])],
        }

    def _undo(self, call: Call) -> dict[str, Any]:
        return self._edited(self._edits.undo)

    def _file(self, call: Call) -> Response:
        with TemporaryDirectory() as folder:
            path = Path(folder, "site.bank")
            self._site.tagger.class_bank.save(path)
            data = path.read_bytes()
        name = {"Content-Disposition": 'attachment; filename="site.bank"'}
        return Response(data, media_type="application/octet-stream", headers=name)

    def _use(self, call: Call) -> dict[str, Any]:
        bank = _bank_of(call.body)
        return self._edited(lambda: self._edits.replace(bank, "an uploaded bank"))

    def _known(self, call: Call) -> str:
        tag = str(call.values["tag"])
        if tag not in self._site.tagger.names:
            raise RefusedError(404, f"there is no tag {tag!r}")
        return tag

    def _edited(self, change: Callable[[], object]) -> dict[str, Any]:
        try:
            change()
        except InputError as failure:  # the bank as it is does not allow it
            raise RefusedError(409, str(failure)) from None
        return self._described()

    def _why_not(self) -> str | None:
        """Why names cannot be added; None where they can."""
        try:
            check_swappable(self._site.tagger.bundle)
        except InputError as failure:
            return str(failure)
        missing = [name for name in _TOWER if importlib.util.find_spec(name) is None]
        if missing:
            return (
                f"{' and '.join(missing)} not installed here. Make a bank elsewhere (taidpt bank "
                "make) and upload it, or pip install 'taidpt[tune]'."
            )
        return None


def _bank_of(data: bytes) -> ClassBank:
    """The bank in an uploaded file; 422 if it is none."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "the uploaded bank")
        path.write_bytes(data)
        try:
            return ClassBank.load(path)
        except TaidptError as failure:
            raise RefusedError(422, str(failure).replace(f"{folder}/", "")) from None

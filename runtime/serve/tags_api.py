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
from taidpt.runtime.sites.site import CameraGroup, Site
from taidpt.runtime.sites.text_tower import TextTower
from taidpt.runtime.tagger.active_bank import check_swappable

__all__ = ["BUNDLE_ID", "TagsApi", "described_tower", "group_of"]

# The text tower needs PyTorch and open_clip; without them names cannot be added.
_TOWER_PACKAGES = ("torch", "open_clip")
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
_TOWER = {
    "tower": text(
        "The text tower that names are added with.", 20, enum=["off", "loading", "ready"]
    ),
    "tower_failure": nullable(text("Why it could not be loaded.", 2000)),
}
_BANK = object_of(
    bundle=text("The bundle's id.", 64),
    tags=integer("Number of tags.", 1, 2**53 - 1),
    can_add={"type": "boolean", "description": "Whether tags can be added and removed at all."},
    can_add_names={"type": "boolean", "description": "Whether names can be added here."},
    why_not=nullable(text("Why they cannot, and what to do.", 2000)),
    **_TOWER,
    edits=array(_EDIT, "The edits that can be undone, the newest first."),
)
_BUNDLE = object_of(
    id=text("Its id.", 64),
    name=text("The name of its folder.", 2000),
    device=text("What runs its graph.", 200),
    tags=integer("Number of tags.", 1, 2**53 - 1),
    cameras=array(text("A camera's id.", 64), "The cameras that it tags."),
)
BUNDLE_ID = text("The bundle's id; needed where the site has several.", 64)
_OF = {"bundle": BUNDLE_ID}
_LIMIT = integer("How many at most.", 1, 100_000, default=1000)
_WHICH = {"tag": {**NAME, "x-required": True}, **_OF}
_BYTES: Schema = {"type": "string", "format": "binary"}


class TagsApi:
    """The operations on the tags of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def operations(self) -> list[Operation]:
        """The table."""
        bank = Answer("The bank after it.", _BANK)
        file = "application/octet-stream"
        return [
            Operation(
                *("GET", "/v1/bundles", "bundles", "All bundles.", self._bundles),
                Answer("The bundles.", object_of(bundles=array(_BUNDLE))),
            ),
            Operation(
                *("GET", "/v1/tags", "tags", "All tags with their thresholds.", self._tags),
                Answer("The tags, in the bank's order.", object_of(tags=array(_TAG))),
                query={"search": text("Only names that contain this."), "limit": _LIMIT, **_OF},
                errors=(404,),
            ),
            Operation(
                *("POST", "/v1/tags", "add-tags", "Add tags by name, or those of a bank file."),
                self._add,
                bank,
                query=_OF,
                body={
                    "application/json": object_of(names=array(NAME, minItems=1, maxItems=100)),
                    file: _BYTES,
                },
                errors=(404, 409, 415, 422),
            ),
            Operation(
                *("POST", "/v1/tags/prepare", "prepare", "Load the text tower, to add names soon."),
                self._prepare,
                Answer("How it is.", object_of(**_TOWER)),
                query=_OF,
                errors=(404, 409),
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
                query=_OF,
                body={"application/json": object_of(name=NAME, pictures=PICTURES)},
                errors=(404, 409, 415, 422),
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
            Operation(
                *("GET", "/v1/bank", "bank", "The bank and its history.", self._bank, bank),
                query=_OF,
                errors=(404,),
            ),
            Operation(
                *("POST", "/v1/bank/undo", "undo", "Undo the last edit.", self._undo, bank),
                query=_OF,
                errors=(404, 409),
            ),
            Operation(
                *("GET", "/v1/bank/file", "bank-file", "The bank as a file.", self._file),
                Answer("As `taidpt tag --bank` takes it.", _BYTES, file),
                query=_OF,
                errors=(404,),
            ),
            Operation(
                *("PUT", "/v1/bank/file", "use-bank", "Use another bank.", self._use, bank),
                query=_OF,
                body={file: _BYTES},
                errors=(404, 409, 415, 422),
            ),
        ]

    def _bundles(self, call: Call) -> dict[str, Any]:
        return {
            "bundles": [
                {
                    "id": name,
                    "name": group.tagger.bundle.path.name,
                    "device": str(group.tagger.device),
                    "tags": len(group.tagger.names),
                    "cameras": list(group.cameras),
                }
                for name, group in self._site.groups.items()
            ]
        }

    def _tags(self, call: Call) -> dict[str, Any]:
        vocabulary = self._group(call).tagger.vocabulary
        search = (call.values["search"] or "").lower()
        rows = zip(vocabulary.names, vocabulary.on, vocabulary.off, vocabulary.sources, strict=True)
        found = [
            {"name": name, "on": float(on), "off": float(off), "source": source}
            for name, on, off, source in rows
            if search in name.lower()
        ]
        return {"tags": found[: int(call.values["limit"])]}

    def _add(self, call: Call) -> dict[str, Any]:
        group = self._group(call)
        if isinstance(call.body, bytes):
            bank = _bank_of(call.body)
            return _edited(group, lambda: group.edits.join(bank))
        names = [name.strip() for name in call.body["names"]]
        return _edited(group, lambda: group.edits.add(names))

    def _prepare(self, call: Call) -> dict[str, Any]:
        group = self._group(call)
        why_not = _why_not(group)
        if why_not is not None:
            raise RefusedError(409, why_not)
        group.edits.tower.warm()
        return described_tower(group.edits.tower)

    def _add_by_examples(self, call: Call) -> dict[str, Any]:
        group = self._group(call)
        pictures = decode_pictures(call.body["pictures"])
        moments = [camera.latest for camera in group.cameras.values()]
        frames = [moment.frame.picture for moment in moments if moment is not None]
        if not frames:
            raise RefusedError(409, "no camera has given a frame yet, to tell the tag from")
        bank, name = group.tagger.bank, call.body["name"].strip()
        return _edited(group, lambda: group.edits.join(bank.from_pictures(name, pictures, frames)))

    def _change(self, call: Call) -> dict[str, Any]:
        group, tag, wanted = self._group(call), self._known(call), call.body

        def change() -> None:
            if "on" in wanted:
                group.edits.set_threshold(tag, wanted["on"], wanted.get("off"))
            if "name" in wanted:
                group.edits.rename(tag, wanted["name"].strip())

        if "off" in wanted and "on" not in wanted:
            raise RefusedError(400, "body.off needs body.on beside it")
        return _edited(group, change)

    def _remove(self, call: Call) -> dict[str, Any]:
        group, tag = self._group(call), self._known(call)
        return _edited(group, lambda: group.edits.remove(tag))

    def _scores(self, call: Call) -> dict[str, Any]:
        group, tag, camera = self._group(call), self._known(call), call.values["camera"]
        if camera is not None and camera not in group.cameras:
            raise RefusedError(404, f"there is no camera {camera!r} of this bundle")
        chosen = [group.cameras[camera]] if camera else [*group.cameras.values()]
        scores = np.concatenate([one.history.scores(tag) for one in chosen])
        share = np.linspace(0, 1, _QUANTILES)
        quantiles = np.quantile(scores, share).tolist() if len(scores) else []
        return {"seconds": len(scores), "quantiles": quantiles}

    def _bank(self, call: Call) -> dict[str, Any]:
        return _described(self._group(call))

    def _undo(self, call: Call) -> dict[str, Any]:
        group = self._group(call)
        return _edited(group, group.edits.undo)

    def _file(self, call: Call) -> Response:
        group = self._group(call)
        with TemporaryDirectory() as folder:
            path = Path(folder, "site.bank")
            group.tagger.class_bank.save(path)
            data = path.read_bytes()
        name = {"Content-Disposition": f'attachment; filename="{group.config.id}.bank"'}
        return Response(data, media_type="application/octet-stream", headers=name)

    def _use(self, call: Call) -> dict[str, Any]:
        group, bank = self._group(call), _bank_of(call.body)
        return _edited(group, lambda: group.edits.replace(bank, "an uploaded bank"))

    def _group(self, call: Call) -> CameraGroup:
        return group_of(self._site, call)

    def _known(self, call: Call) -> str:
        tag = str(call.values["tag"])
        if tag not in self._group(call).tagger.names:
            raise RefusedError(404, f"there is no tag {tag!r}")
        return tag


def group_of(site: Site, call: Call) -> CameraGroup:
    """The cameras of the bundle that a call names; 400 if it has to name one, 404 if unknown."""
    name, ids = call.values["bundle"], ", ".join(site.groups)
    if name is None:
        if len(site.groups) > 1:
            raise RefusedError(400, f"this site has several bundles; give bundle: {ids}")
        return next(iter(site.groups.values()))
    if name not in site.groups:
        raise RefusedError(404, f"there is no bundle {name!r}; there are: {ids}")
    return site.groups[name]


def described_tower(tower: TextTower) -> dict[str, Any]:
    """How a text tower is, as JSON values."""
    return {"tower": tower.state, "tower_failure": tower.failure or None}


def _described(group: CameraGroup) -> dict[str, Any]:
    why_not = _why_not(group)
    return {
        "bundle": group.config.id,
        "tags": len(group.tagger.names),
        "can_add": group.tagger.bundle.manifest.graph.bank == "input",
        "can_add_names": why_not is None,
        "why_not": why_not,
        **described_tower(group.edits.tower),
        "edits": [dataclasses.asdict(edit) for edit in reversed(group.edits.edits[1:])],
    }


def _edited(group: CameraGroup, change: Callable[[], object]) -> dict[str, Any]:
    try:
        change()
    except InputError as failure:  # the bank as it is does not allow it
        raise RefusedError(409, str(failure)) from None
    return _described(group)


def _why_not(group: CameraGroup) -> str | None:
    """Why names cannot be added; None where they can."""
    try:
        check_swappable(group.tagger.bundle)
    except InputError as failure:
        return str(failure)
    missing = [name for name in _TOWER_PACKAGES if importlib.util.find_spec(name) is None]
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

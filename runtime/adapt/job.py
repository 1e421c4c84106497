"""From the options of `taidpt adapt` to a bank file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from taidpt.runtime.adapting.examples import examples_to_bank, put_tags
from taidpt.runtime.adapting.scene_mark import SceneMark
from taidpt.runtime.adapting.scene_rows import Adaptation, adapt_bank
from taidpt.runtime.adapting.similarity import Features
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.sources.base import Frame
from taidpt.runtime.sources.picture_files import read_image
from taidpt.runtime.sources.pictures import ImageSource
from taidpt.runtime.storage.outputs import refuse_unwritable
from taidpt.runtime.stream.frame_batches import open_sources, read_frames
from taidpt.runtime.tagger.active_bank import bundle_bank, check_fit
from taidpt.runtime.tagger.tagger import Tagger

__all__ = ["AdaptJob", "run_adapt"]

_BATCH = 8


@dataclass(frozen=True)
class AdaptJob:
    """Everything that one `taidpt adapt` was asked to do.

    Attributes:
        bundle: its encoder reads the pictures.
        sources: unlabelled frames of the scene.
        examples: folders of pictures, each named as its tag.
        output: the bank file; None: the bundle's name with the ending .bank.
        bank: the bank to start from; None: the bundle's own.
        every, max_frames: use each N-th frame, and at most this many.
        dry_run: write nothing.
        backend: options of `Tagger.load`.
    """

    bundle: str
    sources: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    output: str | None = None
    bank: str | None = None
    every: int = 1
    max_frames: int = 500
    dry_run: bool = False
    backend: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def target(self) -> Path:
        """The file to write."""
        return Path(self.output or Path(self.bundle).with_suffix(".bank"))


def run_adapt(job: AdaptJob) -> None:
    """Adapt, print what changed, and write the bank.

    Raises:
        InputError: the frames or examples do not suffice, or adapting does not help; nothing is
            written.
        TaidptError: what the parts raise.
    """
    folders = _folders(job)
    if not job.dry_run:
        refuse_unwritable(job.target)
    with Tagger.load(job.bundle, **job.backend) as tagger:
        bundle = tagger.bundle
        if job.bank is None:
            bank = bundle_bank(bundle)
        else:
            bank = check_fit(ClassBank.load(job.bank), bundle, job.bank)
        shown = {tag: _read_examples(tagger, folder) for tag, folder in folders.items()}
        scene, problem = _read_scene(tagger, job) if job.sources else (None, None)
    if scene is not None:
        _check_camera(bank, scene, job)
    if shown:
        changed = _from_examples(bank, shown, scene, bundle)
    else:
        assert scene is not None
        changed = _from_scene(bank, scene, bundle)
    if not job.dry_run:
        changed.save(job.target)
        _print_next(job, bundle)
    if problem is not None:
        raise problem


def _folders(job: AdaptJob) -> dict[str, Path]:
    """Tag → its folder of examples.

    Raises:
        InputError: there is nothing to learn from, or a folder is none or given twice.
    """
    if not job.sources and not job.examples:
        raise InputError("nothing to adapt to: give --frames SOURCE, or --examples FOLDER")
    folders: dict[str, Path] = {}
    for text in job.examples:
        folder = Path(text)
        tag = folder.resolve().name
        if not folder.is_dir():
            raise InputError(
                f"--examples {text}: expected a folder of pictures whose name is the tag"
            )
        if tag in folders:
            raise InputError(f"--examples {text}: the tag {tag!r} is given twice; join the folders")
        folders[tag] = folder
    if len(folders) == 1 and not job.sources:
        raise InputError(
            "one folder of examples needs frames that do not show the tag: add --frames SOURCE, or "
            "--examples of another tag"
        )
    return folders


def _check_camera(bank: ClassBank, scene: Features, job: AdaptJob) -> None:
    """Refuse frames that are unlike those that the bank was adapted to."""
    mark = _mark_of(bank)
    if mark is None or not mark.is_another(scene):
        return
    raise InputError(
        f"--frames {' '.join(job.sources)}: another camera: {mark.share(scene):.0%} of these "
        f"frames are as like the scene of {job.bank or job.bundle} as its own are, expected half; "
        "nothing is written. Keep a bank for each camera: start with the bank from before adapting "
        "(--bank)"
    )


def _mark_of(bank: ClassBank) -> SceneMark | None:
    facts = bank.metadata.get("adaptation")
    return SceneMark.from_json(facts.get("scene"), bank.dim) if isinstance(facts, dict) else None


def _read_examples(tagger: Tagger, folder: Path) -> Features:
    """The features of all pictures of a folder; examples are few, so none may be broken."""
    with contextlib.ExitStack() as stack:
        sources = open_sources(stack, tagger.bundle, [str(folder)])
        if not all(isinstance(source, ImageSource) for source in sources):
            raise InputError(f"--examples {folder}: holds a video; examples are pictures")
        paths = [path for source in sources for path in getattr(source, "wanted", ())]
    pictures, broken = [], []
    for path in paths:
        try:
            pictures.append(read_image(path))
        except InputError as error:
            broken.append(error)
    if broken:
        raise InputError(
            f"--examples {folder}: {len(broken)} of {len(paths)} pictures cannot be read, the "
            f"first is {broken[0]}; replace or remove them"
        )
    starts = range(0, len(pictures), _BATCH)
    return _join([tagger.features(pictures[start : start + _BATCH]) for start in starts])


def _read_scene(tagger: Tagger, job: AdaptJob) -> tuple[Features, InputError | None]:
    """The features of the frames, and the error of a source that ended early.

    Patches are kept in half precision: 500 frames of 196 patches of 512 numbers are 100 MB.
    """

    def read(group: list[Frame]) -> Features:
        found = tagger.features([frame.image for frame in group])
        return Features(found.whole.copy(), found.patches.astype(np.float16))

    with contextlib.ExitStack() as stack:
        sources = open_sources(stack, tagger.bundle, job.sources, job.every)
        parts, problem = read_frames(sources, job.max_frames, read, "reading")
    return _join(parts), problem


def _join(parts: Sequence[Features]) -> Features:
    return Features(
        np.concatenate([part.whole for part in parts]),
        np.concatenate([part.patches for part in parts]),
    )


def _from_scene(bank: ClassBank, scene: Features, bundle: Bundle) -> ClassBank:
    found = adapt_bank(bank, scene, bundle.manifest.scoring)
    for tag in found.tags:
        if not tag.changed and found.helps:
            print(f"{printable(tag.name)} keeps its row: {tag.why_kept}")
    if not found.helps:
        raise InputError(f"{bundle.path}: nothing is written: {_why_not(found)}")
    count = sum(tag.changed for tag in found.tags)
    print(
        f"{count} of {len(found.tags)} tags have new rows, {found.weight:.3g} of them from "
        f"{len(scene)} frames; agreement of the local with the global score "
        f"{found.before:.3f} -> {found.after:.3f}"
    )
    facts = {"frames": len(scene), "weight": found.weight, "agreement": [found.before, found.after]}
    return _with_facts(found.bank, facts, SceneMark.of(scene))


def _why_not(found: Adaptation) -> str:
    if not any(tag.found for tag in found.tags):
        return "no tag has confident patches in three frames; give frames that show your tags"
    return (
        f"new rows do not make the scores agree better ({found.before:.3f} with the rows there "
        "are); keep these"
    )


def _from_examples(
    bank: ClassBank, shown: Mapping[str, Features], scene: Features | None, bundle: Bundle
) -> ClassBank:
    """Each tag against the scene, or else against the other tags' examples."""
    changed = bank
    for tag, pictures in shown.items():
        others = [part for name, part in shown.items() if name != tag]
        against = _join(others) if scene is None else scene
        made = examples_to_bank(tag, pictures, against, changed, bundle.manifest.scoring)
        prior = "with its present rows as prior" if tag in bank.names else "a new tag"
        plural = "s" * (len(pictures) != 1)
        print(f"{printable(tag)}: from {len(pictures)} picture{plural}, {prior}")
        changed = put_tags(changed, made)
    facts = {"examples": {tag: len(part) for tag, part in shown.items()}}
    return _with_facts(changed, facts, _mark_of(bank) if scene is None else SceneMark.of(scene))


def _with_facts(bank: ClassBank, facts: Mapping[str, Any], mark: SceneMark | None) -> ClassBank:
    own = dict(facts) if mark is None else {**facts, "scene": mark.to_json()}
    return dataclasses.replace(bank, metadata={**bank.metadata, "adaptation": own})


def _print_next(job: AdaptJob, bundle: Bundle) -> None:
    print(f"wrote {job.target}")
    if bundle.manifest.graph.bank != "input":
        print(
            f"{job.bundle} has its tags as constants: taidpt-export {job.target} -o NAME.taidpt "
            "makes a bundle of the new ones"
        )
        return
    print(f"use it: taidpt tag {job.bundle} SOURCE --bank {job.target}")
    if job.sources:
        frames = " ".join(f"--frames {source}" for source in job.sources)
        print(f"thresholds: taidpt calibrate {job.bundle} --bank {job.target} {frames}")

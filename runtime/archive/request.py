"""What one `taidpt archive` is asked to do, and what its rows depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.archive.schema import FeatureLayout
from taidpt.runtime.backends.engine_files import ENGINES
from taidpt.runtime.bundle.bundle import PARITY_FILE, Bundle
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.atomic import sha256_of
from taidpt.runtime.tag.request import TagJob
from taidpt.runtime.top_k import refuse_top

__all__ = [
    "ArchiveJob",
    "difference",
    "file_identity",
    "identity_of",
    "layout_of",
    "manifest_sha256",
]

# Options of a stream that change no row.
_FREE = ("batch", "overlap", "keep_events")


@dataclass(frozen=True)
class ArchiveJob:
    """Everything that one `taidpt archive` is asked to do.

    Attributes:
        tag: the bundle, the sources, the bank, and how clips are read and tagged.
        output: the folder of the archive.
        features: which features are stored, one of `FEATURES`.
        workers: processes that tag; None: as many as the machine has cores or GPUs.
        deadline_s: longest time without a tagged frame; a clip that takes longer is an error.
        shard_clips: clips per shard, at most.
        retry_errors: tag clips again that are in the table of errors.
        ray: the Ray cluster that tags; None: processes of this machine.
    """

    tag: TagJob
    output: str
    features: str = "none"
    workers: int | None = None
    deadline_s: float = 120.0
    shard_clips: int = 64
    retry_errors: bool = False
    ray: str | None = None

    @property
    def folder(self) -> Path:
        """The folder of the archive."""
        return Path(self.output)


def layout_of(kind: str, manifest: Manifest) -> FeatureLayout:
    """The features that an archive of a bundle stores.

    Raises:
        InputError: the graph gives no global features.
    """
    if kind != "none" and "global_features" not in manifest.graph.outputs:
        raise InputError(
            "--features needs a graph that gives global features, and this bundle's does not; "
            "export it again"
        )
    return FeatureLayout(kind, manifest.global_shape, manifest.patches)


def manifest_sha256(manifest: Manifest) -> str:
    """A hash of all that scores depend on: not of engines, parity reports and provenance."""
    document = manifest.to_json()
    del document["provenance"]
    document["files"] = {
        name: entry
        for name, entry in document["files"].items()
        if name != PARITY_FILE and not name.startswith(f"{ENGINES}/")
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def identity_of(job: ArchiveJob, bundle: Bundle) -> dict[str, Any]:
    """JSON of all that an archive's rows depend on beside the clips.

    Raises:
        InputError: the bundle was exported with `--top-k`, or the bank cannot be read.
    """
    refuse_top(bundle.manifest.graph.top_k, bundle.path, "an archive")
    tag = job.tag
    stream = dataclasses.asdict(tag.stream)
    options = {
        "features": job.features,
        "top": tag.outputs.top,
        "threshold": tag.threshold,
        "resize": tag.resize,
        "every": tag.source.every,
        "max_fps": tag.source.max_fps,
        "roi": None if tag.source.roi is None else list(tag.source.roi),
        **{name: value for name, value in stream.items() if name not in _FREE},
    }
    return {
        "bundle": _named(tag.bundle, manifest_sha256(bundle.manifest)),
        "bank": None if tag.bank is None else file_identity(tag.bank),
        "options": options,
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """In words, how two identities differ; None where their rows are the same."""
    for key, without in (("bundle", "no bundle"), ("bank", "the bundle's own bank")):
        texts = [_text(identity.get(key)) or without for identity in (before, now)]
        if (before.get(key) or {}).get("sha256") != (now.get(key) or {}).get("sha256"):
            return f"with {texts[0]}, and now it is {texts[1]}"
    for name in {**before["options"], **now["options"]}:
        old, value = before["options"].get(name), now["options"].get(name)
        if old != value:
            return f"with {name} {_value(old)}, and now it is {_value(value)}"
    return None


def file_identity(path: str) -> dict[str, str]:
    """Name and hash of a bank.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return _named(path, sha256_of(Path(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _value(value: Any) -> str:
    return "left out" if value is None else str(value)


def _text(file: Mapping[str, Any] | None) -> str:
    return "" if file is None else f"{file['name']} (sha256 {file['sha256'][:12]}…)"


def _named(path: str, sha256: str) -> dict[str, str]:
    return {"name": Path(path).name, "sha256": sha256}

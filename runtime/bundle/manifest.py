"""The manifest of a bundle, schema 1: frozen dataclasses and their JSON (docs/bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.json_reader import JsonReader, parse_object
from taidpt.runtime.storage.regular_file import read_regular

__all__ = [
    "KIND",
    "LOCAL_BRANCHES",
    "MANIFEST_FILE",
    "SCHEMA",
    "TOP_OUTPUTS",
    "FileEntry",
    "GraphInfo",
    "InputSpec",
    "Manifest",
    "ModelInfo",
    "Scoring",
    "TagEntry",
    "check_file_name",
    "read_manifest",
]

MANIFEST_FILE = "manifest.json"
SCHEMA = 1
KIND = "taidpt-bundle"
DEFAULT_OUTPUTS = ("scores", "global_scores", "local_scores", "global_features", "patch_features")
# What patches keep of the last attention: their own value, or self-self attention (docs/models.md).
LOCAL_BRANCHES = ("value", "self")
TOP_OUTPUTS = ("top_scores", "top_indices")  # instead of "scores" in a top-k export


@dataclass(frozen=True)
class TagEntry:
    """One tag.

    Attributes:
        name: as shown in results.
        threshold: the scores at which it switches.
        synonyms: other words for it.
        probability: the JSON of a map from score to probability; None before calibration.
    """

    name: str
    threshold: Threshold
    synonyms: tuple[str, ...] = ()
    probability: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "synonyms": list(self.synonyms),
            "threshold": self.threshold.to_json(),
            "probability": None if self.probability is None else dict(self.probability),
        }

    @classmethod
    def from_json(cls, reader: JsonReader) -> TagEntry:
        """From a JSON object; BundleError when a key is missing or wrong."""
        calibrated = "probability" in reader
        if not reader.string("name").strip():
            reader.fail("name", "a tag's name")
        return cls(
            name=reader.string("name"),
            threshold=Threshold.from_json(reader.child("threshold")),
            synonyms=reader.strings("synonyms"),
            probability=reader.child("probability").document if calibrated else None,
        )


@dataclass(frozen=True)
class ModelInfo:
    """The CLIP model of the graph.

    Attributes:
        grid: rows and columns of patches, of a tile if any.
        local_branch: one of LOCAL_BRANCHES; bundles of older versions have the value path.
    """

    name: str
    pretrained: str
    weights_sha256: str
    licence: str
    embed_dim: int
    grid: tuple[int, int]
    local_branch: str = "value"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "grid": list(self.grid)}

    @classmethod
    def from_json(cls, reader: JsonReader) -> ModelInfo:
        """From a JSON object; BundleError when a key is missing or wrong."""
        branch = "value"
        if "local_branch" in reader:
            branch = reader.choice("local_branch", LOCAL_BRANCHES)
        return reader.build(cls, grid=reader.size("grid", "[rows, columns]"), local_branch=branch)


@dataclass(frozen=True)
class GraphInfo:
    """The ONNX graph.

    Attributes:
        opset, ir_version: of ONNX.
        file: the name of its file.
        bank: "constant" in the graph, or its "input".
        inputs, outputs: their names.
        top_k: number of best scores of each frame that it returns; None returns all scores.
    """

    opset: int
    ir_version: int
    file: str = "model.onnx"
    bank: str = "constant"
    inputs: tuple[str, ...] = ("frames",)
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    top_k: int | None = None

    @classmethod
    def from_json(cls, reader: JsonReader) -> GraphInfo:
        """From a JSON object; BundleError when a key is missing or wrong."""
        outputs = reader.strings("outputs")
        top_k = reader.integer("top_k", least=1) if "top_k" in reader else None
        scores = ("scores",) if top_k is None else TOP_OUTPUTS
        if not {*scores, "patch_features"} <= set(outputs):
            reader.fail("outputs", f"a list with {', '.join(scores)} and patch_features")
        return reader.build(
            cls,
            file=reader.choice("file", ("model.onnx",)),
            bank=reader.choice("bank", ("constant", "input")),
            top_k=top_k,
        )


@dataclass(frozen=True)
class FileEntry:
    """A file's size in bytes and SHA-256 in hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    `files` lists all other files of the bundle, and `BundleWriter` fills it. `provenance` is free
    JSON.
    """

    tags: tuple[TagEntry, ...]
    model: ModelInfo
    scoring: Scoring
    input: InputSpec
    graph: GraphInfo
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def global_shape(self) -> tuple[int, ...]:
        """Shape of a frame's global feature: [D], or [tiles, D]."""
        tiles = self.input.view.tiles
        return (() if tiles is None else (len(tiles.corners),)) + (self.model.embed_dim,)

    @property
    def patches(self) -> int:
        """P, the number of patches of a frame, those of all tiles together."""
        rows, columns = self.model.grid
        return rows * columns * len(self.input.view.corners)

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names, in the order of the graph's scores."""
        return tuple(tag.name for tag in self.tags)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "schema": SCHEMA,
            "kind": KIND,
            "tags": [tag.to_json() for tag in self.tags],
            "model": self.model.to_json(),
            "scoring": self.scoring.to_manifest(),
            "input": self.input.to_json(),
            "graph": {k: v for k, v in asdict(self.graph).items() if v is not None},
            "files": {name: asdict(entry) for name, entry in sorted(self.files.items())},
            "provenance": dict(self.provenance),
        }

    def to_bytes(self) -> bytes:
        """As the bytes of manifest.json."""
        document = self.to_json()
        return json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """From the bytes of manifest.json; `where` names the file in errors.

        Raises:
            BundleError: the bytes are no manifest, the schema is newer, or a value is wrong.
        """
        reader = JsonReader(parse_object(data, where), where)
        _check_schema(reader)
        files = reader.child("files")
        manifest = cls(
            tags=tuple(map(TagEntry.from_json, reader.children("tags"))),
            model=ModelInfo.from_json(reader.child("model")),
            scoring=Scoring.from_manifest(reader.child("scoring")),
            input=InputSpec.from_json(reader.child("input")),
            graph=GraphInfo.from_json(reader.child("graph")),
            files={name: _file_entry(files.child(name)) for name in files.document},
            provenance=reader.child("provenance").document,
        )
        _check_whole(manifest, where)
        return manifest


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that is not a plain relative path inside the bundle.

    Raises:
        BundleError: the path is absolute, leaves the folder, or is of another system.
    """
    path = PurePosixPath(name)
    foreign = "\\" in name or PureWindowsPath(name).drive or not name.isprintable()
    if not name or foreign or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise BundleError(f"{where}: the file name {name!r} does not stay inside the bundle")


def read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The manifest of the bundle in a folder, and its bytes.

    Raises:
        BundleError: there is none, or it is damaged.
        InputError: the folder is a file, or the manifest cannot be read.
    """
    path = folder / MANIFEST_FILE
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise BundleError(
            f"{folder}: not a bundle, it has no {MANIFEST_FILE}; make one with taidpt-export"
        ) from None
    except NotADirectoryError:
        raise InputError(f"{folder}: not a bundle: a bundle is a folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return Manifest.from_bytes(data, str(path)), data


def _file_entry(reader: JsonReader) -> FileEntry:
    return FileEntry(reader.integer("size"), reader.string("sha256"))


def _check_schema(reader: JsonReader) -> None:
    if reader.document.get("kind") != KIND:
        reader.fail("kind", repr(KIND))
    schema = reader.integer("schema", least=1)
    if schema > SCHEMA:
        raise BundleError(
            f"{reader.where}: schema {schema} is newer than this version of taidpt reads "
            f"({SCHEMA}); update taidpt, or export the bundle with this version"
        )


def _check_whole(manifest: Manifest, where: str) -> None:
    if not manifest.tags:
        raise BundleError(f"{where}: the tag list is empty")
    names = manifest.names
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{where}: the tag {twice!r} is listed twice")
    for name in manifest.files:
        check_file_name(name, where)
    if manifest.graph.file not in manifest.files:
        raise BundleError(f"{where}: the graph's file {manifest.graph.file!r} is not in its files")

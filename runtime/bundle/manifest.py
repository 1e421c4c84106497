"""The manifest of a bundle, schema 1: frozen dataclasses and their JSON. See docs/bundle.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from taidpt.runtime.bank.thresholds import Threshold
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import BundleError
from taidpt.runtime.storage.json_reader import JsonReader, parse_object

__all__ = [
    "KIND",
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
]

SCHEMA = 1
KIND = "taidpt-bundle"
DEFAULT_OUTPUTS = (
    "scores",
    "global_scores",
    "local_scores",
    "global_features",
    "patch_features",
)
TOP_OUTPUTS = ("top_scores", "top_indices")  # in place of all scores, where only the best come out


@dataclass(frozen=True)
class TagEntry:
    """One tag: its name, other words for it, and where it switches.

    `probability` is None until calibrated, then the JSON of a map from score to probability.
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
    """The CLIP model inside: `grid` is the patch grid as (rows, columns)."""

    name: str
    pretrained: str
    weights_sha256: str
    licence: str
    embed_dim: int
    grid: tuple[int, int]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "pretrained": self.pretrained,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            "embed_dim": self.embed_dim,
            "grid": list(self.grid),
        }

    @classmethod
    def from_json(cls, reader: JsonReader) -> ModelInfo:
        """From a JSON object; BundleError when a key is missing or wrong."""
        grid = reader.integers("grid")
        if len(grid) != 2 or min(grid) < 1:
            reader.fail("grid", "[rows, columns]")
        return cls(
            name=reader.string("name"),
            pretrained=reader.string("pretrained"),
            weights_sha256=reader.string("weights_sha256"),
            licence=reader.string("licence"),
            embed_dim=reader.integer("embed_dim", least=1),
            grid=(grid[0], grid[1]),
        )


@dataclass(frozen=True)
class GraphInfo:
    """The ONNX graph: its file, versions, whether the bank is a constant, inputs and outputs.

    `top_k` is None, or how many best scores of each frame it returns in place of all.
    """

    opset: int
    ir_version: int
    file: str = "model.onnx"
    bank: str = "constant"
    inputs: tuple[str, ...] = ("frames",)
    outputs: tuple[str, ...] = DEFAULT_OUTPUTS
    top_k: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "file": self.file,
            "opset": self.opset,
            "ir_version": self.ir_version,
            "bank": self.bank,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            **({} if self.top_k is None else {"top_k": self.top_k}),
        }

    @classmethod
    def from_json(cls, reader: JsonReader) -> GraphInfo:
        """From a JSON object; BundleError when a key is missing or wrong."""
        outputs = reader.strings("outputs")
        top_k = reader.integer("top_k", least=1) if "top_k" in reader else None
        scores = ("scores",) if top_k is None else TOP_OUTPUTS
        if not {*scores, "patch_features"} <= set(outputs):
            reader.fail("outputs", f"a list with {', '.join(scores)} and patch_features")
        return cls(
            opset=reader.integer("opset", least=1),
            ir_version=reader.integer("ir_version", least=1),
            file=reader.choice("file", ("model.onnx",)),
            bank=reader.choice("bank", ("constant", "input")),
            inputs=reader.strings("inputs"),
            outputs=outputs,
            top_k=top_k,
        )


@dataclass(frozen=True)
class FileEntry:
    """A file's size in bytes and SHA-256 in hexadecimal."""

    size: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"size": self.size, "sha256": self.sha256}

    @classmethod
    def from_json(cls, reader: JsonReader) -> FileEntry:
        """From a JSON object; BundleError when a key is missing or wrong."""
        return cls(reader.integer("size"), reader.string("sha256"))


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself.

    `files` lists every other file of the bundle; the writer fills it. `provenance` is free JSON.
    """

    tags: tuple[TagEntry, ...]
    model: ModelInfo
    scoring: Scoring
    input: InputSpec
    graph: GraphInfo
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
            "graph": self.graph.to_json(),
            "files": {name: entry.to_json() for name, entry in sorted(self.files.items())},
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
            BundleError: it is not a manifest, is of a newer schema, or a value is wrong.
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
            files={name: FileEntry.from_json(files.child(name)) for name in files.document},
            provenance=reader.child("provenance").document,
        )
        _check_whole(manifest, where)
        return manifest


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that is not a plain relative path inside the bundle.

    Raises:
        BundleError: it is absolute, climbs out of the folder, or is another system's.
    """
    path = PurePosixPath(name)
    foreign = "\\" in name or PureWindowsPath(name).drive or not name.isprintable()
    if not name or foreign or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise BundleError(f"{where}: the file name {name!r} does not stay inside the bundle")


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

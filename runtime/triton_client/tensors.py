"""Names of the tensors that the tagger's model on a server takes and gives, and their types."""

from __future__ import annotations

import hashlib
import math

from taidpt.runtime.bundle.manifest import Manifest

__all__ = [
    "BANK",
    "BUNDLE",
    "FACTS",
    "FRAMES",
    "TAGS",
    "graph_outputs",
    "largest_outputs",
    "manifest_id",
]

FRAMES, BANK = "frames", "bank"
# The bundle's folder beside model.py.
BUNDLE = "bundle.taidpt"
# Strings about the bundle, each one a frame because the server batches every tensor.
FACTS = ("manifest", "class_bank", "bundle_id")
# What people need who have no taidpt: name → type of one value a tag.
TAGS = {"names": "TYPE_STRING", "on": "TYPE_BOOL", "probability": "TYPE_FP32"}


def graph_outputs(manifest: Manifest) -> dict[str, tuple[str, list[int]]]:
    """The graph's outputs: name → type and shape of one frame, -1 for any size."""
    scores = ("TYPE_FP32", [-1])
    kinds = {
        "global_features": ("TYPE_FP32", list(manifest.global_shape)),
        "patch_features": ("TYPE_FP32", [manifest.patches, manifest.model.embed_dim]),
        "top_indices": ("TYPE_INT64", [-1]),
    }
    return {name: kinds.get(name, scores) for name in ("scores", *manifest.graph.outputs)}


def largest_outputs(manifest: Manifest, tags: int) -> dict[str, int]:
    """Bytes of each output for one frame and a number of tags, at most."""
    return {
        name: (8 if kind == "TYPE_INT64" else 4)
        * math.prod(tags if size == -1 else size for size in shape)
        for name, (kind, shape) in graph_outputs(manifest).items()
    }


def manifest_id(manifest: bytes) -> str:
    """A hash of a manifest, which lists the hashes of all files."""
    return hashlib.sha256(manifest).hexdigest()

"""The clips of an archive, and the shards that they are tagged in."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.errors import InputError
from taidpt.runtime.sources.address import Kind, parse_address
from taidpt.runtime.sources.open import media_files

__all__ = ["Clip", "Shard", "clip_of", "find_clips", "make_shards"]

# A shard is what a kill loses. A gibibyte is some 40 minutes of a camera at 3.5 Mbit/s, which one
# core tags in minutes; more, smaller shards would mean more files to open for each query.
_SHARD_BYTES = 1 << 30


@dataclass(frozen=True, order=True)
class Clip:
    """A video or picture file, and the state in which it was found.

    Attributes:
        name: its absolute path as text; bytes that are not UTF-8 are written as \\xe9.
        path: its absolute path.
        size: in bytes.
        modified_ns: time of its last change, in nanoseconds since 1970.
    """

    name: str
    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class Shard:
    """Clips that are tagged and stored together.

    Attributes:
        name: a hash of the clips and of all that their rows depend on.
        clips: sorted by name.
    """

    name: str
    clips: tuple[Clip, ...]


def find_clips(sources: Sequence[str]) -> list[Clip]:
    """Every video and picture that the sources name, once each, sorted by name.

    Args:
        sources: files, folders (with all folders inside them), and patterns such as `cam*/*.mp4`.
    Raises:
        InputError: a source names nothing, a folder without videos or pictures, or a stream.
    """
    # links stay as they are: a person finds the clip by the path that was given
    paths = {os.path.abspath(path) for text in sources for path in _paths(text)}  # noqa: PTH100
    return sorted(map(clip_of, paths))


def _paths(text: str) -> Iterator[str | Path]:
    if glob.has_magic(text) and not Path(text).exists():
        matches = sorted(glob.glob(text, recursive=True))  # noqa: PTH207
        if not matches:
            raise InputError(f"{text}: no file matches this pattern")
        for match in matches:
            yield from _paths(match)
        return
    address = parse_address(text)
    if address.kind is Kind.FOLDER:
        for paths in media_files(Path(address.text), recursive=True):
            yield from paths
    elif address.kind is Kind.FILE:
        yield address.text
    else:
        raise InputError(
            f"{address.name}: an archive is made of files, and this is a {address.kind.value}; "
            "tag it with `taidpt tag`"
        )


def clip_of(path: str) -> Clip:
    """A file as it is now.

    Raises:
        InputError: it cannot be read.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - any bytes
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    name = os.fsencode(path).decode("utf-8", "backslashreplace")
    return Clip(name, path, status.st_size, status.st_mtime_ns)


def make_shards(
    clips: Iterable[Clip], identity: Mapping[str, Any], most_clips: int
) -> Iterator[Shard]:
    """Group clips, in order, into shards of at most `most_clips` clips or about a gibibyte.

    Args:
        clips: sorted.
        identity: JSON of all that rows depend on beside the clips.
        most_clips: at least 1.
    """
    group: list[Clip] = []
    for clip in clips:
        if group and (len(group) == most_clips or sum(c.size for c in group) >= _SHARD_BYTES):
            yield _shard(group, identity)
            group = []
        group.append(clip)
    if group:
        yield _shard(group, identity)


def _shard(clips: Sequence[Clip], identity: Mapping[str, Any]) -> Shard:
    states = [[clip.name, clip.size, clip.modified_ns] for clip in clips]
    text = json.dumps([identity, states], sort_keys=True)
    return Shard(hashlib.sha256(text.encode()).hexdigest()[:20], tuple(clips))

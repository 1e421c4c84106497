"""The clips of an archive, and the shards that they are tagged in."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taidpt.runtime.archive.remote import list_remote
from taidpt.runtime.errors import InputError
from taidpt.runtime.redact import redact
from taidpt.runtime.sources.address import Kind, other_scheme, parse_address
from taidpt.runtime.sources.open import media_files
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["Clip", "Shard", "clip_of", "find_clips", "make_shards"]

# A shard is what a kill loses. A gibibyte is some 40 minutes of a camera at 3.5 Mbit/s, which one
# core tags in minutes; more, smaller shards would mean more files to open for each query.
_SHARD_BYTES = 1 << 30


@dataclass(frozen=True, order=True, slots=True)
class Clip:
    """A video or picture file, and the state in which it was found.

    Attributes:
        name: its absolute path as text; bytes that are not UTF-8 are written as \\xe9. Of a file at
            an address this, without credentials.
        path: its absolute path, or its address.
        size: in bytes.
        modified_ns: time of its last change, in nanoseconds since 1970.
    """

    name: str
    path: str
    size: int
    modified_ns: int

    @property
    def is_remote(self) -> bool:
        """Whether it is at an address, from which it is copied to be read."""
        return other_scheme(self.path) is not None

    @property
    def what_hangs(self) -> str:
        """Where it is read, for errors."""
        return "the decoder or the connection" if self.is_remote else "the decoder"


@dataclass(frozen=True, slots=True)
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
        sources: files, folders (with all folders inside them), patterns such as `cam*/*.mp4`,
            each of them at an address of fsspec too, and `@FILE`, a list of these.
    Raises:
        InputError: a source names nothing, a folder without videos or pictures, or a stream.
        MissingDependencyError: the package for an address is missing.
    """
    paths, remote = set[str](), dict[str, Clip]()
    for text in _listed(sources):
        if other_scheme(text):
            remote |= {url: _remote_clip(url, *state) for url, *state in list_remote(text)}
        else:
            # links stay as they are: a person finds the clip by the path that was given
            paths |= {os.path.abspath(path) for path in _paths(text)}  # noqa: PTH100
    return sorted([*map(clip_of, paths), *remote.values()])


def _listed(sources: Iterable[str]) -> Iterator[str]:
    """The sources, and those that lists name, one a line; blank lines and # comments are left out.

    Raises:
        InputError: a list cannot be read, or is empty.
    """
    for text in sources:
        if not text.startswith("@") or Path(text).exists():
            yield text
            continue
        name = text[1:]
        try:
            data = sys.stdin.buffer.read() if name == "-" else read_regular(Path(name))
        except OSError as error:
            raise InputError(f"{name}: the list cannot be read: {error.strerror}") from None
        lines = [os.fsdecode(line.strip()) for line in data.splitlines()]
        entries = [line for line in lines if line and not line.startswith("#")]
        if not entries:
            raise InputError(f"{name}: the list names no source; write one a line")
        yield from entries


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


def _remote_clip(url: str, size: int, modified_ns: int) -> Clip:
    return Clip(redact(url), url, size, modified_ns)


def clip_of(path: str) -> Clip:
    """A file, by its path or its address, as it is now.

    Raises:
        InputError: it cannot be read.
        MissingDependencyError: the package for its address is missing.
    """
    if other_scheme(path):
        return _remote_clip(*next(list_remote(path)))
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
    size, facts = 0, json.dumps(identity, sort_keys=True)
    for clip in clips:
        if group and (len(group) == most_clips or size >= _SHARD_BYTES):
            yield _shard(group, facts)
            group, size = [], 0
        group.append(clip)
        size += clip.size
    if group:
        yield _shard(group, facts)


def _shard(clips: Sequence[Clip], facts: str) -> Shard:
    states = [[clip.name, clip.size, clip.modified_ns] for clip in clips]
    text = f"[{facts}, {json.dumps(states)}]"
    return Shard(hashlib.sha256(text.encode()).hexdigest()[:20], tuple(clips))

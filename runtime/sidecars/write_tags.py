"""Run `taidpt archive write-tags`: tags of an archive's clips to XMP sidecars beside the files."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from taidpt.runtime.archive.folder import ArchiveFolder
from taidpt.runtime.errors import InputError
from taidpt.runtime.printable import printable
from taidpt.runtime.sidecars import NAMINGS
from taidpt.runtime.sidecars.xmp import Sidecar
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.regular_file import read_regular
from taidpt.runtime.tag.terminal import log_to_stderr

__all__ = ["write_tags"]

_LOG = logging.getLogger("taidpt.runtime")
# darktable keeps a picture's whole history of edits there: some megabytes at most.
_MOST_BYTES = 16 << 20
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")


def write_tags(archive: str, naming: str, remove: bool = False, dry_run: bool = False) -> None:
    """Write the tags of an archive's clips into their sidecars, and print what was done.

    Sidecars that hold these tags already are left alone. The clips themselves are never written.

    Args:
        archive: its folder.
        naming: one of `NAMINGS`: IMG.jpg.xmp or IMG.xmp.
        remove: remove our tags, and sidecars that hold nothing else.
        dry_run: write nothing.
    Raises:
        InputError: the folder is no archive; or, after all others, some sidecars cannot be used.
    """
    done, failures = Counter[str](), list[str]()
    with log_to_stderr():
        sidecars = _sidecars(ArchiveFolder.load(archive), naming, done)
        for sidecar, tags in sorted(sidecars.items()):
            try:
                done[_update(sidecar, () if remove else tuple(sorted(tags)), dry_run)] += 1
            except InputError as error:
                failures.append(str(error))
                _LOG.warning("%s", error)
        if done["hidden"]:
            _LOG.warning(
                "%d files have a sidecar with the other name alone, which programs that look for "
                "this one no longer read; --sidecar %s writes into them",
                done["hidden"],
                NAMINGS[1 - NAMINGS.index(naming)],
            )
    _report(archive, done, dry_run)
    if failures:
        raise InputError(
            f"{len(failures)} sidecars were left as they are; the first: {failures[0]}"
        )


def _sidecars(archive: ArchiveFolder, naming: str, done: Counter[str]) -> dict[Path, set[str]]:
    """Sidecar → the tags of the files that it belongs to."""
    sidecars = defaultdict[Path, set[str]](set)
    for name, tags in _tags(archive):
        path = _path(name)
        if path is None:
            done["gone"] += 1
            continue
        names = {"full": path.with_name(f"{path.name}.xmp"), "stem": path.with_suffix(".xmp")}
        sidecar = names.pop(naming)
        (other,) = names.values()
        if tags and other.exists() and not sidecar.exists():
            done["hidden"] += 1
        sidecars[sidecar] |= tags
    return sidecars


def _tags(archive: ArchiveFolder) -> Iterator[tuple[str, set[str]]]:
    """The clips that were tagged, and the tags of their events."""
    for shard in archive.shards():
        manifest = archive.read_part("manifest", shard, ["clip", "frames"]).to_pydict()
        events = archive.read_part("events", shard, ["clip", "tag"]).to_pydict()
        tags = defaultdict[str, set[str]](set)
        for clip, tag in zip(events["clip"], events["tag"], strict=True):
            tags[clip].add(tag)
        for clip, frames in zip(manifest["clip"], manifest["frames"], strict=True):
            if frames:  # one that could not be read says nothing about its tags
                yield clip, tags[clip]


def _path(name: str) -> Path | None:
    """The file of a clip's name, in which bytes that are not UTF-8 are written as \\xe9."""
    raw = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())
    paths = (Path(name), Path(os.fsdecode(raw)))
    return next((path for path in paths if path.is_file()), None)


def _update(path: Path, tags: tuple[str, ...], dry_run: bool) -> str:
    """Bring one sidecar to these tags; what was done.

    Raises:
        InputError: it is damaged, or cannot be read or written.
    """
    data = _read(path)
    if data is None and not tags:
        return "kept"
    sidecar = Sidecar(data, str(path))
    if not sidecar.set_tags(tags):
        return "kept"
    removed = sidecar.is_empty
    if not dry_run:
        with _disk_errors(path):
            if removed:
                path.unlink()
            else:
                write_atomically(path, sidecar.to_bytes())
    return "removed" if removed else "written"


def _read(path: Path) -> bytes | None:
    with _disk_errors(path), contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path}: is larger than {_MOST_BYTES >> 20} MiB; left as it is")
        return read_regular(path)
    return None


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read or written: {error.strerror}") from None


def _report(archive: str, done: Mapping[str, int], dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    parts = [f"{done['written']} sidecars {would}written, {done['kept']} as they were"]
    parts += [f"{done['removed']} {would}removed"] if done["removed"] else []
    parts += [f"{done['gone']} files are not here"] if done["gone"] else []
    print(f"{printable(archive)}: {', '.join(parts)}")

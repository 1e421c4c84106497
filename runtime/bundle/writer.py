"""Atomic writing of bundles: a reader always sees the old bundle or the new one."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from taidpt.runtime.bundle.manifest import (
    MANIFEST_FILE,
    FileEntry,
    Manifest,
    check_file_name,
    read_manifest,
)
from taidpt.runtime.closing import Closing
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import (
    exchange,
    fsync_folder,
    hold_lock,
    sha256_of,
    write_atomically,
)
from taidpt.runtime.storage.regular_file import read_regular
from taidpt.runtime.storage.temporary_folder import TemporaryFolder, remove_stale

__all__ = ["BundleWriter", "is_being_replaced", "recover_bundle"]

# Each try fails only if a reader put the old bundle back in the microseconds between two renames.
_SWAP_TRIES = 20


class _Base(NamedTuple):
    """The bundle whose files are taken over, at the time of reading."""

    path: Path
    manifest: Manifest
    data: bytes

    def is_current(self) -> bool:
        """Whether the manifest is unchanged since; calibration, for example, writes thresholds."""
        try:
            return read_regular(self.path / MANIFEST_FILE) == self.data
        except OSError:
            return False


class BundleWriter(Closing):
    """Collects the files of a bundle in a hidden sibling folder, which `commit` moves into place.

    Without `commit` the previous bundle of that name is unchanged, and the hidden folder is
    removed; after a kill, the next writer of the same name removes it.

        with BundleWriter("street.taidpt") as writer:
            onnx.save(model, writer.path("model.onnx"))
            bank.save(writer.path("bank.safetensors"))
            writer.commit(manifest)

    To change a bundle, give the same path as base: files that its manifest lists are taken over.
    """

    def __init__(self, target: str | Path, base: str | Path | None = None) -> None:
        """Begin a bundle.

        Args:
            target: the bundle's folder; an existing one must be a bundle or empty.
            base: an existing bundle whose files are taken over (linked or copied).
        Raises:
            InputError: the target cannot be written, or is a folder of something else.
            BundleError: the base is not a bundle.
        """
        self.target = Path(target).absolute()
        recover_bundle(self.target)
        _check_target(self.target)
        remove_stale(self.target.parent, _prefix(self.target, "old"))
        self._base = None if base is None else _Base(Path(base), *read_manifest(Path(base)))
        self._inherited = {} if self._base is None else dict(self._base.manifest.files)
        self._temporary = _make_temporary(self.target)
        self.folder = self._temporary.path
        self._committed = False
        if self._base is not None:
            try:
                _link_files(self._base.path, self._inherited, self.folder)
            except BaseException:
                self.close()
                raise

    @property
    def base(self) -> Manifest:
        """The manifest of the base at the time this writer was created.

        Raises:
            BundleError: there is no base.
        """
        if self._base is None:
            raise BundleError(f"{self.target}: this writer has no base")
        return self._base.manifest

    def path(self, name: str) -> Path:
        """The path to write the file `name` to (a relative path with forward slashes)."""
        check_file_name(name, str(self.target))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # a hard link to the base's file, which must not change
        self._inherited.pop(name, None)
        return path

    def remove(self, name: str) -> None:
        """Leave out a file of the base."""
        self.path(name)

    def write(self, name: str, data: bytes) -> None:
        """Write one file of the bundle."""
        self.path(name).write_bytes(data)

    def stage(self, manifest: Manifest | None = None) -> Manifest:
        """Hash and flush all files and write the manifest into the hidden folder.

        The hidden folder is a complete bundle then, which can be loaded before `commit`.

        Args:
            manifest: the manifest, whose `files` is filled in here; None takes that of the base.
        Returns:
            The manifest as written.
        Raises:
            BundleError: the graph is missing, or a file of the base is damaged.
        """
        if self._committed:
            raise BundleError(f"{self.target}: this writer has committed already")
        (self.folder / MANIFEST_FILE).unlink(missing_ok=True)
        files = _flush_files(self.folder)
        changed = [name for name, entry in self._inherited.items() if files.get(name) != entry]
        if changed:
            raise BundleError(
                f"{self.target}: changed or damaged: {', '.join(changed)}; export it again"
            )
        whole = dataclasses.replace(manifest or self.base, files=files)
        data = whole.to_bytes()
        Manifest.from_bytes(data, f"{self.target} (its new manifest)")
        write_atomically(self.folder / MANIFEST_FILE, data)
        return whole

    def commit(self, manifest: Manifest | None = None) -> Manifest:
        """Stage all files and put the bundle in place.

        Raises:
            BundleError: as `stage`, or another process changed the base meanwhile.
            InputError: the target cannot be replaced.
        """
        whole = self.stage(manifest)
        with hold_lock(self.target) if self.target.is_dir() else contextlib.nullcontext():
            if self._base is not None and not self._base.is_current():
                raise BundleError(
                    f"{self._base.path}: was changed by another command meanwhile; run this one "
                    "again"
                )
            _swap(self.folder, self.target)
        self._committed = True
        return whole

    def close(self) -> None:
        """Remove the hidden folder: a bundle that was not committed, or the replaced one."""
        self._temporary.close()


def recover_bundle(target: Path) -> None:
    """Put the old bundle back if a replacement by two renames was cut between them."""
    if target.exists() or not target.parent.is_dir():
        return
    for old in sorted(_siblings(target, "old")):
        if (old / MANIFEST_FILE).is_file():
            with contextlib.suppress(OSError):
                old.rename(target)
                return


def is_being_replaced(target: Path) -> bool:
    """Whether a replacement by two renames is in progress, or was cut."""
    return target.parent.is_dir() and bool(_siblings(target, "old"))


def _siblings(target: Path, role: str) -> list[Path]:
    prefix = _prefix(target, role)
    return [path for path in target.parent.iterdir() if path.name.startswith(prefix)]


def _prefix(target: Path, role: str) -> str:
    return f".{target.name}.{role}-"


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise InputError(f"{target}: its folder {target.parent} does not exist")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"{target}: no permission to write in {target.parent}")
    if target.is_symlink():
        raise InputError(f"{target}: is a link; give the path of the bundle itself")
    if not target.exists() or (target / MANIFEST_FILE).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise InputError(f"{target}: exists and is not a bundle; choose another name or remove it")


def _link_files(base: Path, names: Iterable[str], folder: Path) -> None:
    """Put files of a bundle into another folder, as hard links or else as copies.

    Other files of the bundle's folder, left by a killed writer for example, are ignored.
    """
    import shutil

    for name in names:
        source, copy = (base / name).resolve(), folder / name
        if not source.is_relative_to(base.resolve()):
            raise BundleError(f"{base / name}: leads out of the bundle")
        if not source.is_file():
            raise BundleError(f"{base / name}: missing; export the bundle again")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)


def _make_temporary(target: Path) -> TemporaryFolder:
    try:
        return TemporaryFolder(target.parent, _prefix(target, "tmp"))
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from None


def _flush_files(folder: Path) -> dict[str, FileEntry]:
    files: dict[str, FileEntry] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        name = path.relative_to(folder).as_posix()
        files[name] = FileEntry(path.stat().st_size, sha256_of(path))
    return files


def _swap(folder: Path, target: Path) -> None:
    """Move `folder` to `target`; a previous bundle ends at `folder`, or is removed."""
    for _ in range(_SWAP_TRIES):
        if target.exists():
            if exchange(folder, target):
                break
            old = target.with_name(f".{target.name}.old-{os.urandom(4).hex()}")
            target.rename(old)
        try:
            folder.rename(target)
        except OSError as error:
            # a reader has put the old bundle back meanwhile: try again
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            raise
        _remove_stale_old(target)
        break
    else:
        raise InputError(f"{target}: others keep writing to it; try again")
    fsync_folder(target.parent)


def _remove_stale_old(target: Path) -> None:
    import shutil

    for old in _siblings(target, "old"):
        shutil.rmtree(old, ignore_errors=True)

"""A bundle on disk: a folder `NAME.taidpt/` with a graph, a bank, a parity report and a manifest.

Loading checks the size of all files and the hash of small ones; `verify_hashes` hashes all files.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from dataclasses import dataclass
from pathlib import Path

from taidpt.runtime.bank.bank_file import read_bank_names
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.manifest import MANIFEST_FILE, Manifest, read_manifest
from taidpt.runtime.bundle.writer import BundleWriter, is_being_replaced, recover_bundle
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import sha256_of, write_atomically

__all__ = ["BANK_FILE", "MODEL_FILE", "PARITY_FILE", "Bundle", "BundleWriter"]

Identity = tuple[int, int, int]  # device and inode of the folder, modification of its manifest

MODEL_FILE = "model.onnx"
BANK_FILE = "bank.safetensors"
PARITY_FILE = "parity.json"
# Files below 4 MiB are hashed at each load, in about 10 ms; a graph would take seconds
# on a Jetson.
_SMALL = 4 << 20
# A load is repeated only after the folder was exchanged meanwhile. An exchange takes milliseconds,
# so 0.4 s outlast a writer that replaces a bundle in a loop.
_LOAD_TRIES, _PAUSE_S = 40, 0.01


@dataclass(frozen=True)
class Bundle:
    """A complete bundle.

    Attributes:
        path: its folder.
        manifest: the content of its manifest.
        identity: changes when the folder is replaced or its manifest is written.
    """

    path: Path
    manifest: Manifest
    identity: Identity

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Open a bundle and check it.

        Args:
            path: the folder `NAME.taidpt`.
        Raises:
            InputError: there is no such folder.
            BundleError: the bundle is damaged, incomplete, inconsistent, or newer.
        """
        folder = Path(path)
        for _ in range(_LOAD_TRIES):
            recover_bundle(folder.absolute())
            before = _identity(folder)
            try:
                return _load_once(folder)
            except (BundleError, InputError):
                # another process may have put a new folder in place between two reads
                if _identity(folder) == before and not is_being_replaced(folder.absolute()):
                    raise
            time.sleep(_PAUSE_S)
        return _load_once(folder)

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names, in the order of the graph's scores."""
        return self.manifest.names

    @functools.cached_property
    def bank(self) -> ClassBank:
        """The class bank, read on first access."""
        return ClassBank.load(self.file(BANK_FILE))

    def file(self, name: str) -> Path:
        """The path of one of the bundle's files.

        Raises:
            BundleError: the manifest lists no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: the bundle has no file {name!r}")
        return self.path / name

    def is_current(self) -> bool:
        """Whether the bundle is unchanged since it was loaded."""
        return _identity(self.path) == self.identity

    def verify_hashes(self) -> tuple[str, ...]:
        """Hash all files; the names of those that are missing or differ from the manifest."""
        return tuple(
            name
            for name, entry in self.manifest.files.items()
            if not (self.path / name).is_file() or sha256_of(self.path / name) != entry.sha256
        )

    def require_whole(self) -> Bundle:
        """The bundle itself, after hashing all files.

        Raises:
            BundleError: files are missing or differ from the manifest.
        """
        changed = self.verify_hashes()
        if changed:
            raise BundleError(
                f"{self.path}: changed or damaged: {', '.join(changed)}; export it again"
            )
        return self

    def with_manifest(self, manifest: Manifest) -> Bundle:
        """Write a changed manifest and return the bundle with it."""
        data = manifest.to_bytes()
        Manifest.from_bytes(data, str(self.path / MANIFEST_FILE))
        write_atomically(self.path / MANIFEST_FILE, data)
        return dataclasses.replace(self, manifest=manifest)


def _load_once(folder: Path) -> Bundle:
    identity = _identity(folder)
    if identity is None and folder.parts[:1] == ("triton:",):
        raise InputError(f"{folder}: a server; this command needs the bundle's folder")
    if identity is None:
        raise InputError(f"{folder}: no such bundle; make one with taidpt-export")
    try:
        manifest, _ = read_manifest(folder)
        _check_files(folder, manifest)
        _check_bank(folder, manifest)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    return Bundle(folder, manifest, identity)


def _identity(folder: Path) -> Identity | None:
    """The identity of a folder; None if there is no folder."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{folder}: cannot be opened: {error.strerror}") from None
    try:
        written = (folder / MANIFEST_FILE).stat().st_mtime_ns
    except OSError:
        written = 0
    return status.st_dev, status.st_ino, written


def _check_files(folder: Path, manifest: Manifest) -> None:
    root = folder.resolve()
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{path}: missing; export the bundle again")
        if not path.resolve().is_relative_to(root):
            raise BundleError(f"{path}: leads out of the bundle")
        size = path.stat().st_size
        if size != entry.size:
            raise BundleError(
                f"{path}: has {size} bytes, the manifest says {entry.size}; it is truncated or was "
                "changed, export the bundle again"
            )
        if size < _SMALL and sha256_of(path) != entry.sha256:
            raise BundleError(f"{path}: its content was changed; export the bundle again")


def _check_bank(folder: Path, manifest: Manifest) -> None:
    """Refuse a tag list that was edited by hand: scores would get wrong names."""
    if BANK_FILE not in manifest.files:
        raise BundleError(f"{folder / MANIFEST_FILE}: lists no {BANK_FILE}")
    if read_bank_names(folder / BANK_FILE) != manifest.names:
        raise BundleError(
            f"{folder / MANIFEST_FILE}: its tags differ from those of {BANK_FILE}; "
            "export the bundle again instead of editing the tags"
        )

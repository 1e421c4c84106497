"""A bundle that serves as the base of another one, which takes over its files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.errors import BundleError
from taidpt.runtime.storage.regular_file import read_regular

__all__ = ["MANIFEST_FILE", "BundleBase"]

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class BundleBase:
    """The bundle at `path` at the time of reading.

    Other files in its folder, left by a killed writer for example, are ignored.

    Attributes:
        path: its folder.
        data: the bytes of its manifest.
        manifest: their content.
    """

    path: Path
    data: bytes
    manifest: Manifest

    @classmethod
    def read(cls, path: Path) -> BundleBase:
        """Read a bundle's manifest.

        Raises:
            BundleError: the manifest is missing or damaged.
        """
        file = path / MANIFEST_FILE
        try:
            data = read_regular(file)
        except OSError as error:
            raise BundleError(f"{file}: cannot be read: {error.strerror}") from None
        return cls(path, data, Manifest.from_bytes(data, str(file)))

    def is_current(self) -> bool:
        """Whether the manifest is unchanged since; calibration, for example, writes thresholds."""
        try:
            return read_regular(self.path / MANIFEST_FILE) == self.data
        except OSError:
            return False

    def link_into(self, folder: Path) -> None:
        """Put its files into another folder, as hard links or else as copies.

        Raises:
            BundleError: a file is missing, or a link leads out of the bundle.
        """
        for name in self.manifest.files:
            copy = folder / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link(self._inside(name), copy)

    def _inside(self, name: str) -> Path:
        source = (self.path / name).resolve()
        if not source.is_relative_to(self.path.resolve()):
            raise BundleError(f"{self.path / name}: leads out of the bundle")
        if not source.is_file():
            raise BundleError(f"{self.path / name}: missing; export the bundle again")
        return source


def _link(source: Path, copy: Path) -> None:
    try:
        os.link(source, copy)
    except OSError:
        import shutil

        shutil.copyfile(source, copy)

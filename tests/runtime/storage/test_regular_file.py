"""A pipe, a device or a folder in place of a file is one line, at once."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.bundle.manifest import read_manifest
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.storage.regular_file import open_regular, read_regular
from tests.runtime.tiny import tiny_bundle


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    expected = {"folder": errno.EISDIR, "nothing": errno.ENOENT}.get(kind, errno.EINVAL)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match=r"Errno|directory|pipe") as caught:
        open_regular(path)
    assert caught.value.errno == expected
    assert caught.value.filename == str(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("manifest.json", Bundle.load),
        ("manifest.json", read_manifest),
        ("model.onnx", Bundle.load),
        ("bank.safetensors", Bundle.load),
        ("bank.safetensors", lambda path: ClassBank.load(path / "bank.safetensors")),
    ],
)
def test_a_pipe_in_a_bundle_does_not_hang(
    tmp_path: Path, name: str, load: Callable[[Path], object]
) -> None:
    path = tiny_bundle(tmp_path / "b.taidpt")
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(TaidptError, match=name) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert not is_bank(path / name)
    shutil.rmtree(path)


def test_a_file_larger_than_memory_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="does not fit into memory"):
        read_regular(path)

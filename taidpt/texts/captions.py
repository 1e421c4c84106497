"""Texts, streamed from files: a caption after the other, never all of them at once.

What a file holds is told by its name (a further `.gz` is unpacked while reading):

| name | what it holds |
|---|---|
| `.json` | COCO captions: `annotations[].caption`; this one form is read whole |
| `.jsonl`, `.ndjson` | a string a line, or an object with `caption` or `text` (as OpenImages has) |
| anything else | a caption a line; of `picture#3<TAB>caption` (Flickr8k) the second column |
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

from taidpt.runtime.errors import InputError

__all__ = ["read_texts"]

Stream: TypeAlias = IO[bytes] | gzip.GzipFile

_FLICKR_KEY = re.compile(r"^\S+#\d+\t")
_JSONL = {".jsonl", ".ndjson"}


def read_texts(path: str | Path) -> Iterator[str]:
    """Stream the texts of a file, without blank ones, in file order.

    Args:
        path: a text file, see the module's table.
    Raises:
        InputError: it is missing, not UTF-8, not the form that its name promises, damaged, or
            holds no text; with the line where it can be told.
    """
    file = Path(path)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    form = (suffixes[:-1] if packed else suffixes)[-1:] or [""]
    found = False
    try:
        with _open(file, packed) as stream:
            for text in _texts(stream, form[0], file):
                found = True
                yield text
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{file}: damaged or not a gzip file; unpack it and look") from None
    if not found:
        raise InputError(f"{file}: holds no text; give a caption a line")


def _open(file: Path, packed: bool) -> Stream:
    try:
        stream = file.open("rb")
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; give a file of captions") from None
    except IsADirectoryError:
        raise InputError(f"{file}: is a folder; give a file of captions") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    # gzip's own stream closes the file below it only when it opened it itself.
    if not packed:
        return stream
    stream.close()
    return gzip.open(file, "rb")


def _texts(stream: Stream, form: str, file: Path) -> Iterator[str]:
    if form == ".json":
        yield from _coco_captions(stream.read(), file)
        return
    read_line = _json_line if form in _JSONL else _plain_line
    for number, raw in enumerate(stream, start=1):
        line = _decode(raw, number, file).strip()
        text = read_line(line, number, file) if line else ""
        if text:
            yield text


def _decode(raw: bytes, number: int, file: Path) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{file}, line {number}: not UTF-8; save the file as UTF-8") from None


def _plain_line(line: str, number: int, file: Path) -> str:
    return _FLICKR_KEY.sub("", line, count=1).strip()


def _json_line(line: str, number: int, file: Path) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{file}, line {number}: not valid JSON ({error})") from None
    if isinstance(value, dict):
        value = value.get("caption", value.get("text"))
    if not isinstance(value, str):
        raise InputError(f"{file}, line {number}: no text under `caption` or `text`")
    return value.strip()


def _coco_captions(raw: bytes, file: Path) -> Iterator[str]:
    try:
        document: Any = json.loads(raw)
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error})") from None
    annotations = document.get("annotations") if isinstance(document, dict) else None
    if not isinstance(annotations, list):
        raise InputError(f"{file}: expected COCO captions, a list under `annotations`")
    for number, annotation in enumerate(annotations, start=1):
        caption = annotation.get("caption") if isinstance(annotation, dict) else None
        if not isinstance(caption, str):
            raise InputError(f"{file}: annotation {number} has no `caption`")
        if caption.strip():
            yield caption.strip()

"""Texts streamed from files, one caption after the other, never all of them at once.

The name of a file decides how it is read (a further `.gz` is unpacked while reading):

| name | content |
|---|---|
| `.json` | COCO captions: `annotations[].caption`; the only form that is read whole |
| `.jsonl`, `.ndjson` | a string a line, or an object with `caption` or `text` (as OpenImages has) |
| anything else | a caption a line, Flickr8k's `picture#3<TAB>caption`, or a table |

A table is a file called `.csv` or `.tsv`, or one whose first line is a header that names a column
of captions (Flickr8k's CSV), or has a URL or a file name beside a tab (Conceptual Captions). Texts
are normalised to Unicode NFC.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TypeAlias

from taidpt.runtime.errors import InputError
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.texts.quoting import listed, quoted

__all__ = ["read_texts"]

Stream: TypeAlias = IO[bytes] | gzip.GzipFile
Lines: TypeAlias = Iterator[tuple[int, str]]

_CHUNK = 1 << 16  # bytes read at a time
_FLICKR_KEY = re.compile(r"^\S+#\d+\t")
_JSONL = {".jsonl", ".ndjson"}
# The delimiters tried, in order, for a file of each name.
_DELIMITERS = {".csv": ",;|\t", ".tsv": "\t", "": "\t,;|"}
# What published tables call their column of captions.
_CAPTION_HEADERS = {"caption", "captions", "text", "comment", "description", "sentence"}
_ADDRESS = re.compile(r"\w+://\S+|\S+\.(jpe?g|png|webp|gif|bmp|tiff?)(#\d+)?", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.,_-]*")


def read_texts(path: str | Path) -> Iterator[str]:
    """Stream the texts of a file in file order, without blank ones.

    Args:
        path: a file in one of the module's forms.
    Raises:
        InputError: the file is missing, not UTF-8, not in the form of its name, damaged, a table
            without a known caption column, or without text; names the line where it is known.
    """
    file = Path(path)
    suffixes = [suffix.lower() for suffix in file.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    form = (suffixes[:-1] if packed else suffixes)[-1:] or [""]
    empty = True
    try:
        with _open(file, packed) as stream:
            for text in filter(None, map(str.strip, _texts(stream, form[0], file))):
                empty = False
                yield unicodedata.normalize("NFC", text)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{file}: damaged or not a gzip file; unpack it and look") from None
    if empty:
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
    # A GzipFile closes the file below it only when it opened that file itself.
    if not packed:
        return stream
    stream.close()
    return gzip.open(file, "rb")


def _texts(stream: Stream, form: str, file: Path) -> Iterator[str]:
    if form == ".json":
        yield from _coco_captions(stream.read(), file)
        return
    lines: Lines = ((number, line) for number, line in _lines(stream, file) if line.strip())
    if form in _JSONL:
        yield from (_json_line(line, number, file) for number, line in lines)
        return
    first = next(lines, (0, ""))
    delimiter = _delimiter(first[1], form)
    lines = itertools.chain([first], lines)
    if delimiter is None:
        yield from (_FLICKR_KEY.sub("", line) for _, line in lines)
    else:
        yield from _table(lines, delimiter, file)


def _lines(stream: Stream, file: Path) -> Lines:
    """Numbered lines of UTF-8 text; a line ends with LF, CR LF or CR."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder("utf-8-sig")(), translate=True
    )
    number, rest, chunk = 1, "", b"-"
    while chunk:
        chunk = stream.read(_CHUNK)
        try:
            *whole, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            number += before.count(b"\n")
            raise InputError(f"{file}, line {number}: not UTF-8; save the file as UTF-8") from None
        for number, line in enumerate(whole, start=number):  # noqa: B020
            yield number, line
        number += bool(whole)
    yield number, rest


def _delimiter(line: str, form: str) -> str | None:
    """The delimiter of the columns if the first line is that of a table, else None."""
    is_table = form in (".csv", ".tsv")
    delimiters = _DELIMITERS[form if is_table else ""]
    if _FLICKR_KEY.match(line):
        return None
    for delimiter in delimiters:
        cells = _cells(line, delimiter)
        with_address = any(map(_ADDRESS.fullmatch, cells)) and (is_table or delimiter == "\t")
        header = _header_column(cells) is not None and (is_table or " " not in "".join(cells))
        if header or (len(cells) > 1 and with_address):
            return delimiter
    return delimiters[0] if is_table else None


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(_rows([line], delimiter), [])]


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The rows of a table; tabs are never quoted, so a quotation mark beside them is text."""
    if delimiter == "\t":
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter)


def _header_column(cells: list[str]) -> int | None:
    """The column that a header calls captions; None where the row is not such a header."""
    named = [index for index, cell in enumerate(cells) if cell.lower() in _CAPTION_HEADERS]
    return named[0] if len(named) == 1 and len(cells) > 1 else None


def _data_column(cells: list[str]) -> int | None:
    """The only column that is no URL, file name or number; None where there are several."""
    texts = [
        index
        for index, cell in enumerate(cells)
        if not (_ADDRESS.fullmatch(cell) or _NUMBER.fullmatch(cell))
    ]
    return texts[0] if len(texts) == 1 else None


def _table(lines: Lines, delimiter: str, file: Path) -> Iterator[str]:
    """The captions of a table; its first row decides the column."""
    number = 1

    def numbered() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007 (for the messages below)
            yield f"{line}\n"

    rows = _rows(numbered(), delimiter)
    try:
        first = [cell.strip() for cell in next(rows)]
        column = _header_column(first)
        if column is None:
            column = _data_column(first)
            rows = itertools.chain([first], rows)
        if column is None:
            raise InputError(
                f"{file}: which of {len(first)} columns holds the captions? The first row is "
                f"{listed(map(quoted, first), 4)}; add a header that calls it `caption`"
            )
        for row in rows:
            if len(row) <= column:
                raise InputError(
                    f"{file}, line {number}: no column {column + 1}, which holds the captions"
                )
            yield row[column]
    except csv.Error as error:
        raise InputError(f"{file}, line {number}: not a valid table ({error})") from None


def _json_line(line: str, number: int, file: Path) -> str:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise InputError(f"{file}, line {number}: not valid JSON ({error})") from None
    if isinstance(value, dict):
        value = value.get("caption", value.get("text"))
    if not isinstance(value, str):
        raise InputError(f"{file}, line {number}: no text under `caption` or `text`")
    return value


def _coco_captions(raw: bytes, file: Path) -> Iterator[str]:
    try:
        document = parse_json(raw)
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

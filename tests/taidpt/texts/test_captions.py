"""Texts from every form of file, and from files that are not what they say."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.texts.captions import read_texts

TEXTS = ["A dog runs.", "Zwei Hunde, früh am Morgen.", "A cat."]
COCO = {"images": [], "annotations": [{"id": i, "caption": t} for i, t in enumerate(TEXTS)]}

FORMS = {
    "plain.txt": "\ufeff" + "\n\n".join(TEXTS) + "\n",
    "flickr.token.txt": "".join(f"1_ab.jpg#{i}\t{t}\n" for i, t in enumerate(TEXTS)),
    "lines.jsonl": "".join(json.dumps({"caption": t}) + "\n" for t in TEXTS),
    "texts.ndjson": "".join(json.dumps({"text": t}) + "\n" for t in TEXTS),
    "strings.jsonl": "".join(json.dumps(t) + "\n" for t in TEXTS),
    "captions.json": json.dumps(COCO),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_texts(tmp_path: Path, name: str, packed: bool) -> None:
    data = FORMS[name].encode()
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(read_texts(path)) == TEXTS


def test_a_long_file_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("a photo of a dog on a long road\n" * 200_000)
    tracemalloc.start()
    count = sum(1 for _ in read_texts(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200_000
    assert peak < path.stat().st_size / 10


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"", "holds no text"),
        ("a.txt", b"\n  \n", "holds no text"),
        ("a.txt", b"fine\ncaf\xe9\n", "line 2: not UTF-8"),
        ("a.jsonl", b'"fine"\n{"caption": 3}\n', "line 2: no text"),
        ("a.jsonl", b'"fine"\n{"caption"\n', "line 2: not valid JSON"),
        ("a.json", b'{"annotations": [{"category_id": 1}]}', "annotation 1 has no `caption`"),
        ("a.json", b"[1]", "expected COCO captions"),
        ("a.json", b"{", "not valid JSON"),
        ("a.txt.gz", b"not packed", "not a gzip file"),
        ("a.txt.gz", gzip.compress(b"A dog.\n" * 999, mtime=0)[:-20], "damaged"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    tmp_path: Path, name: str, data: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=expected) as caught:
        list(read_texts(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_texts(tmp_path / "nothing.txt"))
    with pytest.raises(InputError, match="is a folder"):
        list(read_texts(tmp_path))

"""Texts from every form of file, and one-line errors for invalid files."""

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
    "old-mac.txt": "\r".join(TEXTS) + "\r",
    "windows.txt": "\r\n".join(TEXTS),
    "results.csv": 'Image ID,Caption\n1,A dog runs.\n2,"Zwei Hunde, früh am Morgen."\n3,A cat.',
    "kaggle.txt": 'image,caption\r\na.jpg,A dog runs.\r\nb.jpg,"Zwei Hunde, früh am Morgen."\r\n'
    "c.jpg,A cat.\r\n",
    "flickr30k.txt": "image_name| comment_number| comment\n"
    + "".join(f"7.jpg| {i}| {t}\n" for i, t in enumerate(TEXTS)),
    "conceptual.tsv": "".join(f"{t}\thttps://a.example/cat-{i}.jpg\n" for i, t in enumerate(TEXTS)),
    "addresses.txt": "".join(f"http://b.example/{i}\t{t}\n" for i, t in enumerate(TEXTS)),
    "numbered.tsv": "id\tText\tsource\n" + "".join(f"{i}\t{t}\tme\n" for i, t in enumerate(TEXTS)),
    "one-column.csv": '"A dog runs."\n"Zwei Hunde, früh am Morgen."\n"A cat."\n',
    "composed.txt": "\n".join(TEXTS).replace("ü", "u\u0308"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_equal_texts(tmp_path: Path, name: str, packed: bool) -> None:
    data = FORMS[name].encode()
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(read_texts(path)) == TEXTS


def test_long_file_is_streamed(tmp_path: Path) -> None:
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
        ("a.txt", b"fine\r\nfine\rcaf\xe9\r", "line 3: not UTF-8"),
        (
            "a.csv",
            b"A dog,on a bed\n",
            r"which of 2 columns holds the captions\? .* 'A dog', 'on a",
        ),
        ("a.tsv", b"http://x/1\thttp://x/2\n", "which of 2 columns"),
        ("a.csv", b"id,caption\n1,fine\n2\n", "line 3: no column 2"),
        ("a.csv", b"id,caption\n1," + b"x" * 200_000 + b"\n", "not a valid table"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "line 1: not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
        ("a.jsonl", b'"fine"\n{"caption": 3}\n', "line 2: no text"),
        ("a.jsonl", b'"fine"\n{"caption"\n', "line 2: not valid JSON"),
        ("a.json", b'{"annotations": [{"category_id": 1}]}', "annotation 1 has no `caption`"),
        ("a.json", b"[1]", "expected COCO captions"),
        ("a.json", b"{", "not valid JSON"),
        ("a.txt.gz", b"not packed", "not a gzip file"),
        ("a.txt.gz", gzip.compress(b"A dog.\n" * 999, mtime=0)[:-20], "damaged"),
    ],
)
def test_invalid_file_gives_one_line_error(
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


@pytest.mark.parametrize(
    "text",
    ["A man, a dog, 12 cats", "see dog.jpg, a picture", "text, and more", '"Stop" said a sign, 5'],
)
def test_commas_do_not_make_a_table_of_plain_captions(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plain.txt"
    path.write_text(f"{text}\nA cat, a dog\n")
    assert list(read_texts(path)) == [text, "A cat, a dog"]


def test_quotation_marks_in_a_tab_separated_table_are_text(tmp_path: Path) -> None:
    path = tmp_path / "captions.tsv"
    path.write_text('"Stop" on a sign\thttp://x/1.jpg\n"a cat\thttp://x/2.jpg\nA dog\thttp://x/3\n')
    assert list(read_texts(path)) == ['"Stop" on a sign', '"a cat', "A dog"]

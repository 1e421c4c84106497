"""Tag lists: what is read, and one clear line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from taidpt.runtime.errors import InputError
from taidpt.texts.tags import Tag, TagSet


def write(tmp_path: Path, text: str, name: str = "tags.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_yaml_with_and_without_synonyms(tmp_path: Path) -> None:
    text = "tags:\n- car\n- name: traffic  light\n  synonyms: [signal, stop light, signal]\n"
    tags = TagSet.load(write(tmp_path, text))
    assert tags.tags == (Tag("car"), Tag("traffic light", ("signal", "stop light")))
    assert tags.names == ("car", "traffic light")


def test_a_bare_list_and_a_text_file_are_enough(tmp_path: Path) -> None:
    assert TagSet.load(write(tmp_path, "[dog, cat]")).names == ("dog", "cat")
    assert TagSet.load(write(tmp_path, "dog\n\n cat \n", "tags.txt")).names == ("dog", "cat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no tags"),
        ("tags: []", "no tags"),
        ("tags:\n- dog\n- Dog\n", "'Dog' stands twice"),
        ("tags:\n- dog\n- name: cat\n  synonyms: [DOG]\n", "'DOG' belongs to two tags"),
        ("tags:\n- dog\n- '?!'\n", "'?!'"),
        ("tags:\n- dog\n- ''\n", "is empty"),
        ("tags:\n- dog\n- no\n", "tag 2: got False"),
        ("tags:\n- dog\n- nmae: cat\n", "tag 2: unknown ['nmae']"),
        ("tags:\n- dog\n- [cat\n", "line"),
        ("tags: dog\n", "expected a list"),
        ("classes:\n- dog\n", "expected a list under `tags:`"),
    ],
)
def test_what_cannot_be_a_tag_list_is_named_in_one_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        TagSet.load(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert "\n" not in message


def test_missing_and_wrongly_encoded_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        TagSet.load(tmp_path / "nothing.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("tags: [café]".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 at byte 10"):
        TagSet.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        TagSet.load(tmp_path)

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


def test_bare_list_and_text_file_are_read(tmp_path: Path) -> None:
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
        ("cat:\n3.5:\noff:\n", "got the keys 'cat', 3.5, False"),
        ("tags:\n- dog\n- {name: cat, 3: x, yes: y}\n", "tag 2: unknown [3, True]"),
        ("- dog\n- 2021-02-31\n", "quote dates and numbers"),
        ("- " + "[" * 2000 + "]" * 2000, "nested too deeply"),
        ("- dog\n- {name: cat, synonyms: {a: b}}\n", "tag 2: got {"),
        ("- caf\u00e9\n- bus\n- cafe\u0301\n", "'café' stands twice"),
        ("- dog\n- cat\n- Dog\n- CAT\n", "'Dog' stands twice, the tag 'CAT' stands twice"),
    ],
)
def test_invalid_tag_list_gives_one_line_error(tmp_path: Path, text: str, expected: str) -> None:
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


def test_errors_repeat_at_most_a_line_of_the_input(tmp_path: Path) -> None:
    """Aliases make a short file stand for a billion words; long words and keys are cut too."""
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    nested = f"a0: &a0 [{', '.join('x' * 9)}]\n{levels}tags: [*a9]\n"
    long = "y" * 5000
    for text in (nested, f"- dog\n- {long}: 1\n", f"? {long}\n: 1\n", f"- {long}\n- {long}\n"):
        with pytest.raises(InputError) as caught:
            TagSet.load(write(tmp_path, text))
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)

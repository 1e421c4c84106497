"""JSON from outside, in every file that holds some: used, or refused in one printable line."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from taidpt.clip.source import resolve_source
from taidpt.datasets.coco import coco_captions, image_ids, read_coco
from taidpt.export.parity.labelled_pictures import read_labels
from taidpt.export.parity.reference_pictures import Picture
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.bank.bank_file import is_bank
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.events.machine import Event
from taidpt.runtime.sinks.jsonl import EventsSink
from taidpt.runtime.storage.json_reader import parse_json
from taidpt.texts.captions import read_texts
from taidpt.tuning.checkpoints import Checkpoint
from tests.hostile.damage import damage_bytes, damage_json, require_one_line
from tests.runtime.tiny import TinySpec
from tests.taidpt.prompts.test_prompts_file import make_prompts

MODEL = {"model_cfg": {"embed_dim": 8, "vision_cfg": {"layers": 1}, "text_cfg": {"width": 8}}}
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "caption": "a dog"},
        {"id": 2, "image_id": 2, "category_id": 1, "caption": "a cat"},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


@dataclass(frozen=True)
class Reader:
    """A file with JSON in it: its valid JSON, and how the file is written and read."""

    document: dict[str, Any]
    write: Callable[[Path, str], object]
    read: Callable[[Path], object]


def in_metadata(path: Path, text: str) -> None:
    save_file(load_file(path), path, metadata={"taidpt": text})


def metadata_of(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        return dict(json.loads(stream.metadata()["taidpt"]))


def plain(path: Path, text: str) -> None:
    path.write_text(text)


def _model_folder(path: Path) -> object:
    return resolve_source(str(path.parent), "random")


def _labels(path: Path) -> object:
    return read_labels(path, [Picture("a.jpg", np.zeros((2, 2, 3), np.uint8))], ["dog"])


@pytest.fixture(params=["prompts", "checkpoint", "bank", "model", "labels", "coco", "lines"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Reader, Path]:
    """A reader and its valid file."""
    kind = request.param
    path = tmp_path / {"model": "open_clip_config.json", "lines": "a.jsonl"}.get(kind, "file.json")
    if kind == "prompts":
        make_prompts().save(path)
        return Reader(metadata_of(path), in_metadata, TunedPrompts.load), path
    if kind == "checkpoint":
        Checkpoint({"global": torch.ones(2, 3)}, 1, 2, (0.5,), {"model": "a"}).save(path)
        return Reader(metadata_of(path), in_metadata, Checkpoint.load), path
    if kind == "bank":
        TinySpec(bank_as="input").bank().save(path)
        return Reader(metadata_of(path), in_metadata, ClassBank.load), path
    document, read = {
        "model": (MODEL, _model_folder),
        "labels": ({"a.jpg": ["dog"], "b.jpg": []}, _labels),
        "coco": (COCO, lambda path: (read_coco(path), image_ids(path), [*coco_captions(path)])),
        "lines": ({"caption": "a dog"}, lambda path: list(read_texts(path))),
    }[kind]
    plain(path, json.dumps(document))
    return Reader(document, plain, read), path


def is_refused(reader: Reader, path: Path) -> bool:
    """Whether the file is refused, in one line that names it."""
    try:
        reader.read(path)
    except TaidptError as error:
        refusal = error
    else:
        return False
    require_one_line(refusal)
    assert str(path.parent) in str(refusal)
    return True


NUMBERS = ("NaN", "-Infinity", "1e999", "9" * 400, "-" + "9" * 5000, "[" + "9" * 20 + "]")
STRINGS = ('"\\ud800"', '{"\\udfff": 1}')
DEEP = ("[" * 100_000, '{"a":' * 100_000, "[" * 50_000 + "]" * 50_000)


@pytest.mark.parametrize("value", [*NUMBERS, *STRINGS, *DEEP])
def test_hostile_values_are_refused_alone_and_inside(
    reader: tuple[Reader, Path], value: str
) -> None:
    file, path = reader
    assert not is_refused(file, path)
    whole = json.dumps(file.document)
    for text in (value, f'{whole[:-1]}, "added": {value}}}', f'{{"added": {value}, {whole[1:]}'):
        file.write(path, text)
        assert is_refused(file, path)


@pytest.mark.parametrize("text", ["", "null", "[]", "[[]]", "7", "true", "{", "{}", "\0" * 99])
def test_other_documents_are_refused(reader: tuple[Reader, Path], text: str) -> None:
    file, path = reader
    file.write(path, text)
    assert is_refused(file, path)


def test_damaged_documents_are_read_or_refused(reader: tuple[Reader, Path]) -> None:
    file, path = reader
    chance = random.Random(5)
    refused = 0
    for _ in range(60):
        file.write(path, json.dumps(damage_json(file.document, chance)))
        refused += is_refused(file, path)
    whole = json.dumps(file.document).encode()
    for _ in range(60):
        text = damage_bytes(whole, chance).decode("utf-8", "replace")
        file.write(path, text)
        refused += is_refused(file, path)
    assert refused > 20


def test_a_pipe_is_refused_without_waiting(reader: tuple[Reader, Path]) -> None:
    file, path = reader
    if path.suffix == ".jsonl":
        pytest.skip("captions may come from a pipe")
    path.unlink()
    os.mkfifo(path)
    assert is_refused(file, path)


@pytest.mark.parametrize("value", [*NUMBERS, *STRINGS, *DEEP])
def test_lines_of_a_continued_file_of_events(value: str, tmp_path: Path) -> None:
    """Lines that are no events are left as they are; numbers count from the last event."""
    path = tmp_path / "events.jsonl"
    sink = EventsSink(path)
    sink.resend("cam", [Event(0.0, "dog", "on", 1.0, 0.0, 1.0, number=3)])
    sink.close()
    with path.open("a") as stream:
        stream.write(f'{value}\n{{"source": "cam", "number": {value}}}\n')
    continued = EventsSink(path, append=True)
    events = [Event(0.0, "dog", "off", 1.0, 0.0, 1.0, number=number) for number in (3, 4)]
    continued.resend("cam", events)
    continued.close()
    numbers = [parse_json(line)["number"] for line in path.read_text().splitlines()[::3]]
    assert numbers == [3, 4]


def test_is_bank_of_a_hostile_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for value in (*NUMBERS, *STRINGS, *DEEP):
        save_file({"a": torch.ones(1)}, path, metadata={"taidpt": value})
        assert not is_bank(path)
        with pytest.raises(TaidptError):
            ClassBank.load(path)

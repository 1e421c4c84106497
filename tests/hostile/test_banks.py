"""Damaged banks: every one is read, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taidpt.runtime.bank.bank_file import is_bank, map_local_embeddings, read_bank_names
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.errors import TaidptError
from taidpt.runtime.tagger.tagger import Tagger
from tests.hostile.damage import damage_bytes, damage_json, require_one_line
from tests.runtime.tiny import TinySpec, tiny_bundle

FRAME = np.zeros((16, 16, 3), np.uint8)
RAMP = {"scores": [-1.0, 1.0], "probabilities": [0.0, 1.0], "frames": 9.5, "state": "good"}
BATCHES, INPUTS = 6, 150


def whole_bank() -> ClassBank:
    bank = TinySpec(bank_as="input").bank()
    return dataclasses.replace(bank, probabilities=(RAMP, None, RAMP, None, RAMP))


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The file with its header, the JSON inside the header, or its tensors damaged."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    body = data[8 + size :]
    kind = chance.random()
    if kind < 0.25:
        return damage_bytes(data, chance)
    if kind < 0.45:
        body = damage_bytes(body, chance)
    elif kind < 0.6:
        header = damage_json(header, chance)
    else:
        inner = damage_json(json.loads(header["__metadata__"]["taidpt"]), chance)
        header["__metadata__"]["taidpt"] = json.dumps(inner)
    text = json.dumps(header).encode()
    length = chance.choice((0, 2**62)) if chance.random() < 0.05 else len(text)
    return length.to_bytes(8, "little") + text + body


def use(path: Path, tagger: Tagger) -> None:
    """Everything that a program can do with a bank."""
    is_bank(path)
    bank = ClassBank.load(path)
    assert read_bank_names(path) == bank.names
    assert map_local_embeddings(path).shape == (len(bank.names), bank.dim)
    bank.save(path.with_name("copy.bank"))
    assert ClassBank.load(path.with_name("copy.bank")).thresholds == bank.thresholds
    tagger.use_bank(bank)
    result = tagger(FRAME)
    assert len(result.tags) == len(bank.names)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_damaged_bank_is_read_or_refused(tmp_path: Path, batch: int) -> None:
    path = tmp_path / "site.bank"
    whole_bank().save(path)
    data, refused = path.read_bytes(), 0
    bundle = tiny_bundle(tmp_path / "b.taidpt", TinySpec(bank_as="input"))
    with Tagger.load(bundle, device="cpu") as tagger:
        use(path, tagger)
        for number in range(INPUTS):
            path.write_bytes(damaged(data, random.Random(f"bank {batch} {number}")))
            try:
                use(path, tagger)
            except TaidptError as error:
                refused += 1
                require_one_line(error)
            except Exception as error:
                shown = path.read_bytes()[:3000]
                pytest.fail(f"input {batch}/{number}: {type(error).__name__} {error}\n{shown!r}")
    assert refused > INPUTS // 2

"""Class embeddings and caption features against the plain way, values and gradients."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from taidpt.clip.model import ClipModel
from taidpt.clip.tokenizers import text_tokenizer
from taidpt.features import caption_features, prompt_encoder
from taidpt.features.caption_features import encode_captions, texts_sha256
from taidpt.features.prompt_encoder import (
    PromptEncoder,
    class_embeddings,
    encode_texts,
    plain_class_embeddings,
)
from taidpt.prompts.tokens import tokenize_prompts
from taidpt.runtime.errors import InputError
from tests.taidpt.plain import plain_caption, plain_class_rows
from tests.taidpt.tiny import RESNET, make_clip

NAMES = ["dog", "traffic light", "hot dog", "cat", "saxophone player on a unicycle", "bus"]
CAPTIONS = ["A dog, and a traffic light!", "two cats", "someone rides a unicycle past a bus stop."]


def contexts(count: int = 2, *shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [
        (0.2 * torch.randn(*shape, 5, 64, generator=generator)).requires_grad_(True)
        for _ in range(count)
    ]


def assert_equal_to_plain(
    clip: ClipModel, tuned: list[torch.Tensor], position: str = "end", part: int = 8192
) -> None:
    encoder = PromptEncoder(clip, tokenize_prompts(clip, NAMES, 5, position))
    encoder._tokens_a_part = part
    weight = torch.randn(len(NAMES), 32, generator=torch.Generator().manual_seed(4))
    ours = encoder(tuned)
    plain = [plain_class_rows(clip, NAMES, context, position) for context in tuned]
    for got, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    got_gradients = torch.autograd.grad(sum((row * weight).sum() for row in ours), tuned)
    gradients = torch.autograd.grad(sum((row * weight).sum() for row in plain), tuned)
    for got, expected in zip(got_gradients, gradients, strict=True):
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_prefix_sharing_equals_the_plain_way(resnet_clip: ClipModel, position: str) -> None:
    assert_equal_to_plain(resnet_clip, contexts(), position)


@pytest.mark.parametrize(
    "text",
    [
        {"no_causal_mask": True, "custom_text": True},  # as MobileCLIP: bidirectional
        {"no_causal_mask": True, "custom_text": True, "pool_type": "last"},
        {"custom_text": True, "proj_bias": True},
        {"custom_text": True, "qk_norm": True, "scale_fc": True},  # blocks of another build
        {"ls_init_value": 0.7},
    ],
)
def test_other_towers_equal_the_plain_way(text: dict[str, Any]) -> None:
    clip = make_clip(RESNET, **text)
    if text.get("pool_type") == "last":  # the plain form takes the end token: ask open_clip itself
        rows = plain_class_embeddings(clip, NAMES, ["a {}."])
        tokens = clip.tokenizer([f"a {name}." for name in NAMES])
        expected = F.normalize(clip.model.encode_text(tokens), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    else:
        assert_equal_to_plain(clip, contexts(1))


def test_class_specific_contexts_equal_the_plain_way(resnet_clip: ClipModel) -> None:
    assert_equal_to_plain(resnet_clip, contexts(2, len(NAMES)))


@pytest.mark.parametrize("shape", [(), (len(NAMES),)])
def test_parts_change_nothing(resnet_clip: ClipModel, shape: tuple[int, ...]) -> None:
    assert_equal_to_plain(resnet_clip, contexts(2, *shape), part=9)


def test_class_embeddings_keep_names_of_contexts(resnet_clip: ClipModel) -> None:
    tuned = dict(zip(("global", "local"), contexts(), strict=True))
    found = class_embeddings(resnet_clip, NAMES, tuned)
    assert list(found) == ["global", "local"]
    torch.testing.assert_close(found["local"].norm(dim=-1), torch.ones(len(NAMES)))
    assert not found["local"].requires_grad


def test_templates_equal_open_clip(resnet_clip: ClipModel) -> None:
    templates = ["a photo of a {}.", "one {} in the rain and fog of a very long november night"]
    got = plain_class_embeddings(resnet_clip, NAMES, templates)
    for row, name in zip(got, NAMES, strict=True):
        tokens = resnet_clip.tokenizer([template.format(name) for template in templates])
        features = F.normalize(resnet_clip.model.encode_text(tokens), dim=-1)  # type: ignore[operator]
        torch.testing.assert_close(row, F.normalize(features.mean(0), dim=0), atol=1e-5, rtol=1e-5)


def test_captions_equal_the_plain_way(resnet_clip: ClipModel) -> None:
    features = encode_captions(resnet_clip, CAPTIONS)
    batch = features.batch([2, 0])
    ends = resnet_clip.tokenizer([CAPTIONS[2], CAPTIONS[0]]).argmax(dim=1)
    assert batch.mask.sum(1).tolist() == (ends + 1).tolist()
    for row, text in enumerate([CAPTIONS[2], CAPTIONS[0]]):
        pooled, tokens = plain_caption(resnet_clip, text)
        count = int(batch.mask[row].sum())
        torch.testing.assert_close(batch.pooled[row], pooled, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(batch.tokens[row, :count], tokens[:count], rtol=1e-5, atol=1e-5)
        assert not batch.tokens[row, count:].any()


def test_a_bidirectional_tower_sees_padding_as_clip_does() -> None:
    clip = make_clip(RESNET, no_causal_mask=True, custom_text=True)
    expected = F.normalize(clip.model.encode_text(clip.tokenizer(CAPTIONS)), dim=-1)  # type: ignore[operator]
    torch.testing.assert_close(encode_texts(clip, CAPTIONS), expected, rtol=1e-5, atol=1e-5)
    found = torch.from_numpy(encode_captions(clip, CAPTIONS).pooled)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_cache_gives_what_was_encoded(
    resnet_clip: ClipModel, tmp_path: Path, precision: str
) -> None:
    done: list[int] = []
    direct = encode_captions(resnet_clip, CAPTIONS, precision=precision)
    first = encode_captions(resnet_clip, CAPTIONS, tmp_path, precision, done.append)
    again = encode_captions(resnet_clip, CAPTIONS, tmp_path, precision, done.append)
    assert sum(done) == len(CAPTIONS)
    for features in (first, again):
        np.testing.assert_array_equal(features.tokens, direct.tokens)
        np.testing.assert_array_equal(features.pooled, direct.pooled)
        assert features.batch([1]).tokens.dtype == torch.float32
    assert len(list(tmp_path.iterdir())) == 1
    encode_captions(resnet_clip, CAPTIONS[:2], tmp_path, precision)
    assert len(list(tmp_path.iterdir())) == 2


def test_equal_captions_are_encoded_once(resnet_clip: ClipModel, tmp_path: Path) -> None:
    repeated = [CAPTIONS[number] for number in (2, 0, 2, 1, 0, 2)]
    done: list[int] = []
    features = encode_captions(resnet_clip, repeated, progress=done.append)
    assert len(features) == sum(done) == 6
    assert len(features.pooled) == 3
    cached = encode_captions(resnet_clip, repeated, tmp_path)
    for row, text in enumerate(repeated):
        single = encode_captions(resnet_clip, [text]).batch([0])
        for batch in (features.batch([row]), cached.batch([row])):
            torch.testing.assert_close(batch.pooled, single.pooled, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(batch.tokens, single.tokens, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pad", [0, 1])
def test_captions_are_tokenised_once_and_padded_again(
    resnet_clip: ClipModel, monkeypatch: pytest.MonkeyPatch, pad: int
) -> None:
    tokenizer, seen = text_tokenizer(resnet_clip), list[str]()

    def tokenize(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        ids = tokenizer.tokenize(texts)
        return torch.where(ids == 0, pad, ids)

    padded, encode = list[torch.Tensor](), caption_features.token_features
    own = dataclasses.replace(tokenizer, tokenize=tokenize, pad=pad)
    for module in (caption_features, prompt_encoder):
        monkeypatch.setattr(module, "text_tokenizer", lambda _: own)
    monkeypatch.setattr(
        caption_features,
        "token_features",
        lambda clip, ids, ends: padded.append(ids) or encode(clip, ids, ends),
    )
    monkeypatch.setattr(caption_features, "_CAPTIONS_A_PART", 2)
    encode_captions(resnet_clip, CAPTIONS)
    assert seen == list(CAPTIONS)
    assert torch.equal(torch.cat(padded), tokenize(list(CAPTIONS)))


def test_many_captions_lie_in_a_file_that_no_one_has_to_delete(
    resnet_clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, notes = encode_captions(resnet_clip, CAPTIONS), list[str]()
    monkeypatch.setattr(caption_features, "_CAPTIONS_A_PART", 2)
    monkeypatch.setattr(caption_features, "_MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    features = encode_captions(resnet_clip, CAPTIONS, note=notes.append)
    assert isinstance(features.tokens, np.memmap)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_allclose(features.tokens, direct.tokens, atol=1e-5)
    np.testing.assert_allclose(features.pooled, direct.pooled, atol=1e-5)
    kept = f"they are kept in {tmp_path}, not in memory"
    assert notes == [f"features of {len(CAPTIONS)} captions take 0.0 GB: {kept}"]


@pytest.mark.parametrize("where", ["temporary", "cache"])
def test_a_disk_that_is_too_small_is_refused_before_the_work(
    resnet_clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(caption_features, "_MOST_IN_MEMORY", 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=900))
    monkeypatch.setattr(caption_features, "token_features", pytest.fail)
    cache = tmp_path if where == "cache" else None
    with pytest.raises(
        InputError, match=r"has 0\.0 GB free: --cache-precision fp16 takes half, --"
    ):
        encode_captions(resnet_clip, CAPTIONS, cache)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_cache_says_so(resnet_clip: ClipModel, tmp_path: Path) -> None:
    encode_captions(resnet_clip, CAPTIONS, tmp_path)
    next(tmp_path.glob("*/tokens.npy")).write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="delete it or choose another"):
        encode_captions(resnet_clip, CAPTIONS, tmp_path)


def test_texts_hash_depends_on_where_texts_end() -> None:
    assert texts_sha256(["ab", "c"]) != texts_sha256(["a", "bc"])


def test_a_tag_longer_than_the_context_is_named(resnet_clip: ClipModel) -> None:
    long = "very " * 70 + "long"
    with pytest.raises(InputError, match=r"takes 71 tokens, and 58 fit .* context of 77"):
        tokenize_prompts(resnet_clip, ["dog", long], 16)
    assert int(tokenize_prompts(resnet_clip, ["a " * 58], 16).ends[0]) == 76


def test_a_name_that_ends_in_punctuation_still_has_one_end(resnet_clip: ClipModel) -> None:
    tokens = tokenize_prompts(resnet_clip, ["dog (big)"], 2)
    expected = resnet_clip.tokenizer.encode("dog (big).")
    end = int(tokens.ends[0])
    assert tokens.ids[0, 3:end].tolist() == expected


def test_empty_lists_and_unknown_positions_are_refused(resnet_clip: ClipModel) -> None:
    with pytest.raises(InputError, match="list of tags is empty"):
        tokenize_prompts(resnet_clip, [], 16)
    with pytest.raises(InputError, match="expected one of end, middle, front"):
        tokenize_prompts(resnet_clip, ["dog"], 16, "behind")
    with pytest.raises(InputError, match="no captions"):
        encode_captions(resnet_clip, [])
    with pytest.raises(InputError, match="where the name goes"):
        plain_class_embeddings(resnet_clip, ["dog"], ["a dog"])


def test_many_tags_go_in_parts_that_keep_less_than_few_do(resnet_clip: ClipModel) -> None:
    encoder = PromptEncoder(resnet_clip, tokenize_prompts(resnet_clip, NAMES, 5))
    lengths = torch.tensor([3, 3, 4, 4, 5, 5])
    encoder._tokens_a_part = 24
    assert encoder._parts(lengths) == [(0, 6)]
    encoder._tokens_a_part = 23  # parts of at most 5, and of one tag at least
    assert encoder._parts(lengths) == [(index, index + 1) for index in range(6)]
    encoder._tokens_a_part = 16
    assert all(high - low == 1 for low, high in encoder._parts(lengths))
    assert encoder._parts(lengths[:2].repeat(20) // 3)[0] == (0, 4)

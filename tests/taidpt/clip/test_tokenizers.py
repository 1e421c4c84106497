"""Tokenizers of Hugging Face as published SigLIP models bring them, against open_clip itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.clip.tokenizers import text_tokenizer
from taidpt.features.caption_features import encode_captions
from taidpt.features.prompt_encoder import (
    PromptEncoder,
    class_embeddings,
    encode_texts,
    plain_class_embeddings,
)
from taidpt.prompts.tokens import tokenize_prompts
from taidpt.runtime.errors import InputError
from tests.hub_tokenizer import VOCABULARY, load_tokenizer, save_tokenizer
from tests.taidpt.tiny import VIT, make_clip

NAMES = ["dog", "traffic light", "umbrella_(big)"]
TEXTS = ["A dog, and an Umbrella!", "traffic light " * 20, "a"]
_BERT = {"template": "<s> $A </s>", "pad": "<pad>"}
_LAST = {"no_causal_mask": True, "pool_type": "last"}
# As published: how the tokenizer lies on disk, how open_clip wraps it, the text tower.
KINDS: dict[str, tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = {
    "siglip": ({}, {"clean": "canonicalize"}, {**_LAST, "proj_bias": True}),
    "siglip2": ({"pad": "<pad>"}, {"clean": "canonicalize"}, {**_LAST, "proj_bias": True}),
    "siglip without projection": ({}, {"clean": "canonicalize"}, {**_LAST, "proj_type": "none"}),
    "clipa": (_BERT, {"strip_sep_token": True}, _LAST),
    "worldwide": (_BERT, {}, {"pool_type": "eos", "eos_id": 1}),
    "mt5": ({"pad": "<pad>"}, {"clean": "canonicalize"}, {"pool_type": "eos", "eos_id": 1}),
    "no end token": ({"template": "$A", "pad": "<pad>"}, {"clean": "lower"}, _LAST),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ClipModel]:
    def make(kind: str) -> ClipModel:
        saved, options, text = KINDS[kind]
        return with_tokenizer(tmp_path_factory.mktemp("tokenizer"), saved, options, text)

    return make


def with_tokenizer(
    folder: Path, saved: dict[str, str], options: dict[str, Any], text: dict[str, Any]
) -> ClipModel:
    width = 32 if text.get("proj_type") == "none" else 64
    sizes = {"context_length": 24, "vocab_size": VOCABULARY, "width": width}
    clip = make_clip(VIT, custom_text=True, **sizes, **text)
    tokenizer = load_tokenizer(save_tokenizer(folder, **saved), **options)
    return replace(clip, tokenizer=tokenizer, context_length=24)


def by_open_clip(clip: ClipModel, texts: list[str]) -> Tensor:
    found = clip.model.encode_text(clip.tokenizer(texts))  # type: ignore[operator]
    return F.normalize(found, dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_captions_and_templates_equal_open_clip(
    build: Callable[[str], ClipModel], kind: str
) -> None:
    clip = build(kind)
    expected = by_open_clip(clip, TEXTS)
    torch.testing.assert_close(encode_texts(clip, TEXTS), expected, rtol=1e-5, atol=1e-5)
    captions = torch.from_numpy(encode_captions(clip, TEXTS).pooled)
    torch.testing.assert_close(captions, expected, rtol=1e-5, atol=1e-5)
    rows = plain_class_embeddings(clip, NAMES, ["a photo of {}."])
    plain = by_open_clip(clip, [f"a photo of {name}." for name in NAMES])
    torch.testing.assert_close(rows, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("position", "sentence"),
    [("end", "a photo of {}."), ("middle", "a {} photo of."), ("front", "{} a photo of.")],
)
def test_prompts_of_words_equal_the_sentence(
    build: Callable[[str], ClipModel], kind: str, position: str, sentence: str
) -> None:
    """Context vectors that are words' own give what open_clip gives for the whole sentence."""
    clip = build(kind)
    words = torch.tensor(text_tokenizer(clip).encode("a photo of"))
    context = clip.model.text.token_embedding(words)  # type: ignore[operator, union-attr]
    assert len(context) == 3
    names = [name.replace("_", " ") for name in NAMES]
    expected = by_open_clip(clip, [sentence.format(name) for name in names])
    found = class_embeddings(clip, NAMES, {"global": context}, position)["global"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_context_through_padding(build: Callable[[str], ClipModel]) -> None:
    clip = build("siglip")
    context = torch.zeros(4, 64, requires_grad=True)
    encoder = PromptEncoder(clip, tokenize_prompts(clip, NAMES, 4))
    encoder([context])[0][:, 0].sum().backward()
    assert context.grad is not None
    assert bool((context.grad.abs().amax(dim=1) > 1e-6).all())


@pytest.mark.parametrize(
    ("kind", "start", "end", "pad"),
    [("siglip", (), 1, 1), ("siglip2", (), 1, 0), ("clipa", (3,), 0, 0), ("mt5", (), 1, 0)],
)
def test_the_layout_is_seen(
    build: Callable[[str], ClipModel], kind: str, start: tuple[int, ...], end: int, pad: int
) -> None:
    tokenizer = text_tokenizer(build(kind))
    assert (tokenizer.start, tokenizer.end, tokenizer.pad) == (start, end, pad)
    ids, ends = tokenizer.whole(["a dog", "dog " * 40])
    assert ends.tolist() == [len(start) + 2, 23]
    assert ids[0, len(start) : len(start) + 2].tolist() == tokenizer.encode("a dog")


def test_clips_own_tokenizer_keeps_its_layout(resnet_clip: ClipModel) -> None:
    tokenizer = text_tokenizer(resnet_clip)
    assert (tokenizer.start, tokenizer.end, tokenizer.pad) == ((49406,), 49407, 0)
    ids, ends = tokenizer.whole(["a dog", "dog " * 90])
    assert torch.equal(ids, resnet_clip.tokenizer(["a dog", "dog " * 90]))
    assert ends.tolist() == [3, 76]
    tokens = tokenize_prompts(resnet_clip, ["dog"], 2)
    assert tokens.ids.tolist() == [[49406, -1, -2, *tokenizer.encode("dog."), 49407]]


def test_a_name_that_does_not_fit_is_named(build: Callable[[str], ClipModel]) -> None:
    clip = build("siglip")
    with pytest.raises(InputError, match=r"takes 8 tokens, and 7 fit .* other 17 into .* of 24"):
        tokenize_prompts(clip, ["dog " * 8], 16)
    assert int(tokenize_prompts(clip, ["dog " * 7], 16).ends[0]) == 23


@pytest.mark.parametrize(
    ("saved", "options", "text", "message"),
    [
        ({"side": "left"}, {}, _LAST, "does not lay out texts as start, text, one end token"),
        ({}, {"tokenizer_mode": "clips"}, _LAST, "does not lay out texts as start, text"),
        ({}, {}, {"pool_type": "argmax"}, "pools at token .* ends texts with 1"),
        ({}, {}, {"pool_type": "eos", "eos_id": 2}, "at token 2, but its tokenizer ends .* with 1"),
        ({}, {}, {"embed_cls": True}, "prompts cannot be tuned on its text tower"),
    ],
)
def test_what_prompts_cannot_follow_is_refused(
    tmp_path: Path, saved: dict[str, str], options: dict[str, Any], text: Any, message: str
) -> None:
    clip = with_tokenizer(tmp_path, saved, options, text)
    with pytest.raises(InputError, match=message):
        tokenize_prompts(clip, NAMES, 2)


def test_towers_and_tokenizers_of_other_makes_are_refused(
    build: Callable[[str], ClipModel], resnet_clip: ClipModel
) -> None:
    tower = torch.nn.Linear(2, 2)  # as Hugging Face's, without open_clip's parts
    foreign = replace(build("siglip"), model=torch.nn.ModuleDict({"text": tower}))
    with pytest.raises(InputError, match="only on open_clip's own CLIP text transformers"):
        encode_texts(foreign, ["a dog"])
    with pytest.raises(InputError, match="prompts need a tokenizer of CLIP or Hugging Face"):
        encode_texts(replace(resnet_clip, tokenizer=SimpleNamespace()), ["a dog"])

"""The embedded model: fits its configuration, reads any text, computes what open_clip does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from scripts.toyworld.captions import tuning_captions
from scripts.toyworld.model import (
    build_model,
    encode_images,
    encode_texts,
    load_model,
    model_config,
)
from scripts.toyworld.probe import evaluate
from scripts.toyworld.tokenizer import load_tokenizer, vocabulary
from scripts.toyworld.train import Stage, TrainSettings, clip_loss
from taidpt.metrics import mean_average_precision
from taidpt.toyworld import assets

TOKENIZER = load_tokenizer()
MODEL = load_model()


def test_weights_fit_the_configuration_and_are_finite() -> None:
    config = json.loads(assets.path("model.json").read_text("utf-8"))
    assert config == model_config(TOKENIZER.vocab_size)
    fresh = build_model(config)
    fresh.load_state_dict(MODEL.state_dict(), strict=True)
    assert all(torch.isfinite(value).all() for value in MODEL.state_dict().values())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_survives_tokenisation(text: str) -> None:
    numbers = TOKENIZER.encode(text)
    assert all(0 <= number < TOKENIZER.vocab_size - 2 for number in numbers)
    # open_clip mends and lower-cases a text first, and drops the spaces between words.
    cleaned = TOKENIZER.clean_fn(text)
    assert "".join(TOKENIZER.decode(numbers).split()) == "".join(cleaned.split())


def test_toy_world_words_keep_the_tokens_of_the_full_list() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    full = SimpleTokenizer()
    for word in vocabulary():
        ours = [TOKENIZER.decoder[number] for number in TOKENIZER.encode(word)]
        assert ours == [full.decoder[number] for number in full.encode(word)]


def test_captions_fit_the_context() -> None:
    assert max(len(TOKENIZER.encode(text)) for text in tuning_captions(2000)) + 2 <= 77


@torch.no_grad()
def test_image_features_equal_open_clip() -> None:
    pixels = torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    ours, patches = encode_images(MODEL, pixels, positional=True)
    torch.testing.assert_close(ours, MODEL.encode_image(pixels), atol=2e-5, rtol=1e-4)
    assert patches.shape == (3, 25, 192)


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (128, 224)])
def test_any_size_works_without_positional_embedding(size: tuple[int, int]) -> None:
    pooled, patches = encode_images(MODEL, torch.zeros(1, 3, *size), positional=False)
    assert pooled.shape == (1, 192)
    assert patches.shape == (1, size[0] // 32 * (size[1] // 32), 192)


@torch.no_grad()
def test_text_features_equal_open_clip() -> None:
    tokens = TOKENIZER(["a photo of a dog.", "", "two hot dogs, a bear and a teddy bear"])
    torch.testing.assert_close(
        encode_texts(MODEL, tokens), MODEL.encode_text(tokens), atol=2e-5, rtol=1e-4
    )


def test_zero_shot_on_the_heldout_set_is_far_above_chance() -> None:
    # Chance is about 5; the bounds leave room for another CPU's rounding, not for a broken file.
    found = evaluate(MODEL, TOKENIZER, 160, pictures=240)
    assert found["positional"] > 80
    assert found["global"] > 80
    assert found["local"] > 95
    assert found["merged"] > 94


def test_average_precision_of_a_known_order() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]], np.float32)
    labels = np.array([[1], [0], [1], [0]])
    assert mean_average_precision(scores, labels).value == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_matching_pairs_have_the_lower_loss() -> None:
    rows = torch.nn.functional.normalize(torch.randn(8, 16), dim=-1)
    scale = torch.tensor(20.0)
    assert clip_loss(rows, rows, scale) < clip_loss(rows, rows.roll(1, 0), scale)


def test_schedule_warms_up_decays_and_changes_size() -> None:
    run = TrainSettings(stages=(Stage(96, 50, 2), Stage(160, 50)), warmup=10)
    assert run.steps == 100
    assert [run.stage_at(step).size for step in (0, 49, 50, 99, 500)] == [96, 96, 160, 160, 160]
    rates = [run.rate_at(step) for step in range(100)]
    assert max(rates) == pytest.approx(run.learning_rate)
    assert rates[0] < rates[9]
    assert rates[10:] == sorted(rates[10:], reverse=True)

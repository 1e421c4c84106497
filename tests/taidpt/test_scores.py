"""The definition of a score, by hand on small cases and against a reference."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from taidpt.clip.model import ClipModel
from taidpt.features.caption_features import encode_captions
from taidpt.runtime.errors import InputError
from taidpt.scores import (
    Scoring,
    dual_scores,
    global_scores,
    local_scores,
    merged_scores,
)
from tests.taidpt.plain import plain_scores


def test_scores_by_hand() -> None:
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    torch.testing.assert_close(global_scores(patches[:, 2], classes), torch.tensor([[2.4, 3.2]]))
    e = [math.exp(2 * value) for value in (1.0, 0.0, 0.6)]
    first = 4 * (e[0] * 1.0 + e[2] * 0.6) / sum(e)
    got = local_scores(patches, classes, 2.0)
    torch.testing.assert_close(got[0, 0], torch.tensor(first))
    masked = local_scores(patches, classes, 2.0, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(masked[0, 0], torch.tensor(4 * e[0] / (e[0] + e[1])))


def test_captions_are_scored_as_by_the_reference(resnet_clip: ClipModel) -> None:
    texts = ["a dog beside a car", "a very long sentence about nothing but a bird on a wire"]
    rows = F.normalize(torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    batch = encode_captions(resnet_clip, texts).batch([0, 1])
    global_part = global_scores(batch.pooled, rows[0])
    local_part = local_scores(batch.tokens, rows[1], 50.0, batch.mask)
    for index, text in enumerate(texts):
        expected = plain_scores(resnet_clip, text, rows[0], rows[1], 50.0)
        torch.testing.assert_close(global_part[index], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(local_part[index], expected[1], rtol=1e-5, atol=1e-5)


def test_merging_by_hand() -> None:
    scores = merged_scores(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0]]), 0.25)
    torch.testing.assert_close(scores, torch.tensor([[1.25, 2.25]]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 0.5, "none"), "temperature should be above 0"),
        ((40.0, 1.5, "none"), "from 0 to 1, got 1.5"),
        ((40.0, 0.5, "softmax"), "none, center, log_softmax"),
    ],
)
def test_impossible_scoring_is_refused(values: tuple[float, float, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scoring(*values)


def test_dual_scores_by_hand() -> None:
    positive, negative = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    patches = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    temperature = torch.tensor(2.0, requires_grad=True)
    e = [math.exp(2.0), math.exp(1.2)]
    expected = (e[0] * 1.0 + e[1] * (0.6 - 0.8)) / sum(e)
    scores = dual_scores(patches, positive, negative, temperature)
    torch.testing.assert_close(scores, torch.tensor([[expected]]))
    scores.sum().backward()
    assert temperature.grad is not None
    assert temperature.grad > 0

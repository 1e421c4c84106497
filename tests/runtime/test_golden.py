"""The schema-1 bundle that every later version must load, with its scores."""

from __future__ import annotations

import json

import numpy as np

from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.tagger.tagger import Tagger
from tests.support import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden"


def golden_frames() -> np.ndarray:
    """Two 16 × 16 frames and a formula that cannot change with a library."""
    n, row, column, colour = np.ogrid[:2, :16, :16, :3]
    values = n * 91 + row * row * 37 + column * 11 + colour * (53 + row)
    return (values % 256).astype(np.uint8)


def test_the_golden_bundle_loads_and_is_whole() -> None:
    bundle = Bundle.load(GOLDEN / "schema1.taidpt")
    assert bundle.verify_hashes() == ()
    assert bundle.names == ("cat", "dog", "traffic light", "hot dog", "café")
    assert bundle.manifest.tags[2].synonyms == ("alias of traffic light",)
    assert bundle.manifest.tags[0].threshold.source == "default"
    assert bundle.manifest.scoring.merge_weight == 0.5
    assert bundle.bank.dim == 12


def test_the_golden_bundle_gives_its_scores() -> None:
    expected = json.loads((GOLDEN / "schema1.expected.json").read_text("utf-8"))
    with Tagger.load(GOLDEN / "schema1.taidpt", device="cpu") as tagger:
        batch = tagger.tag_batch(golden_frames())
    np.testing.assert_allclose(batch.scores, expected["scores"], atol=2e-6)
    np.testing.assert_allclose(batch[1].heatmap("dog"), expected["heatmap_dog_1"], atol=2e-6)
    assert [tag.name for tag in batch[0].tags] == expected["order_0"]

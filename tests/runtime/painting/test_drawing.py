"""Heatmaps on pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from taidpt.runtime.painting.drawing import paint_heatmap
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.hostile_names import HOSTILE
from tests.runtime.tiny import square_input


def test_a_heatmap_is_painted_where_the_model_looks(hostile: Tagger) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    painted = np.asarray(
        paint_heatmap(Image.fromarray(frame), hostile(frame), HOSTILE[0], square_input(16))
    )
    np.testing.assert_array_equal(painted[:, :20], frame[:, :20])
    np.testing.assert_array_equal(painted[:, 60:], frame[:, 60:])
    assert (painted[:, 20:60] != frame[:, 20:60]).mean() > 0.5

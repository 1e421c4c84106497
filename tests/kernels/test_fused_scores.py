"""Merged scores and best patches on a CPU."""

from __future__ import annotations

import pytest
import torch

from taidpt.kernels.local_similarity import Epilogue, fused_scores, naive
from tests.kernels.cases import Case, make_inputs


def test_scores_are_the_definition_merged_and_scaled() -> None:
    inputs = make_inputs(Case(3, 20, 33, 16, masked=True, valued=True))
    whole, scale, bias = torch.randn(3, 33), torch.rand(33), torch.randn(33)
    found = fused_scores(*inputs, epilogue=Epilogue(whole, 0.3, scale, bias))
    expected = scale * (0.7 * whole + 0.3 * naive.local_similarity(*inputs)) + bias
    torch.testing.assert_close(found.scores, expected, atol=1e-5, rtol=1e-5)
    assert found.best is None


def test_best_patches() -> None:
    inputs = make_inputs(Case(3, 20, 33, 16, masked=True))
    best = fused_scores(*inputs, with_best=True).best
    assert best is not None
    assert bool((best[0] == -1).all())
    unit = torch.nn.functional.normalize(inputs.patches, dim=-1)
    assert inputs.mask is not None
    similarity = (unit @ inputs.class_embeddings.T).masked_fill(~inputs.mask[:, :, None], -9)
    assert torch.equal(best[1:].long(), similarity.argmax(1)[1:])


def test_epilogue_of_wrong_shape_raises() -> None:
    inputs = make_inputs(Case(2, 4, 5, 8))
    with pytest.raises(ValueError, match="both or neither"):
        fused_scores(*inputs, epilogue=Epilogue(scale=torch.ones(5)))
    with pytest.raises(ValueError, match=r"expected shape \(2, 5\), received \(5, 2\)"):
        fused_scores(*inputs, epilogue=Epilogue(torch.ones(5, 2)))

"""What a step keeps for its backward pass: nothing that grows with tags times patches or tags."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from taidpt.features.caption_features import FeatureBatch
from taidpt.tuning.losses import LOSSES, loss_by_name
from taidpt.tuning.objectives import DualObjective, HeadsObjective, Objective

BATCH, TOKENS, CLASSES, DIM = 4, 40, 300, 16
OBJECTIVES = [HeadsObjective(("global", "local"), 50.0, 40.0), DualObjective()]


def kept(objective: Objective, loss: str) -> list[int]:
    """Elements of each tensor that autograd keeps between the passes."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape: int) -> Tensor:
        rows = torch.randn(shape, generator=generator)
        return torch.nn.functional.normalize(rows, dim=-1)

    mask = torch.arange(TOKENS) < torch.tensor([[40], [7], [20], [3]])
    batch = FeatureBatch(unit(BATCH, DIM), unit(BATCH, TOKENS, DIM), mask)
    classes = {name: unit(CLASSES, DIM).requires_grad_() for name in objective.contexts}
    numbers = {name: value.requires_grad_() for name, value in objective.first_numbers().items()}
    labels = torch.full((BATCH, CLASSES), -1.0)
    labels[torch.arange(BATCH), torch.arange(BATCH)] = 1.0
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        scores = objective.scores(batch, classes, numbers)
        total = torch.stack([loss_by_name(loss)(part, labels) for part in scores.values()]).sum()
    gradients = torch.autograd.grad(total, [*classes.values(), *numbers.values()])
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)
    return sizes


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_no_tensor_of_tags_times_tokens_or_tags_is_kept(objective: Objective, loss: str) -> None:
    # the classes' own rows are the largest: [C, D] is beside [B, L, C] and [B, C, C] small
    assert max(kept(objective, loss)) <= max(CLASSES * DIM, BATCH * TOKENS * DIM)
    assert BATCH * TOKENS * CLASSES > 5 * CLASSES * DIM

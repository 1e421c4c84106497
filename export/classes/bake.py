"""Tuned prompts → class bank: the only place where the text tower runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.export.classes.banked_classes import BankedClasses, Classes
from taidpt.features.prompt_encoder import class_embeddings
from taidpt.runtime.bank.class_bank import ClassBank, FloatArray
from taidpt.scores import SCORE_SCALE

__all__ = ["bake", "bank_from_embeddings"]


def bake(prompts: Classes, clip: ClipModel) -> ClassBank:
    """The class bank of tuned prompts, with their scale (4 unless learned) and bias 0 a tag.

    Args:
        prompts: a bank is returned unchanged. A tuned global prompt alone (TaI) is used for both
            heads. Of DualCoOp's two prompts, the positive one weighs patches, and the difference
            of both is scored on them.
        clip: the model for which they were tuned.
    Raises:
        InputError: it is another model.
    """
    prompts.check_model(clip)
    if isinstance(prompts, BankedClasses):
        return prompts.bank
    position = prompts.settings.name_position
    rows = class_embeddings(clip, prompts.names, prompts.contexts, position)
    metadata = {
        "model": dict(prompts.model),
        "scoring": dataclasses.asdict(prompts.scoring),
        "heads": sorted(prompts.contexts),
    }
    if prompts.picture is not None:
        metadata["picture"] = dataclasses.asdict(prompts.picture)
    learned = {"thresholds": prompts.thresholds, "probabilities": prompts.probabilities}
    if "positive" in rows:
        bank = bank_from_embeddings(
            prompts.names, rows["positive"], rows["positive"], metadata, **learned
        )
        values = (rows["positive"] - rows["negative"]).detach().float().cpu().contiguous().numpy()
        scale = np.full(len(prompts.names), prompts.scoring.scale, np.float32)
        return dataclasses.replace(bank, value_embeddings=values, scale=scale)
    return bank_from_embeddings(
        prompts.names,
        rows["global"],
        rows.get("local", rows["global"]),
        metadata,
        **learned,
    )


def bank_from_embeddings(
    names: tuple[str, ...],
    global_rows: Tensor,
    local_rows: Tensor,
    metadata: Mapping[str, Any] | None = None,
    **learned: tuple[Any, ...],
) -> ClassBank:
    """A bank of any class embeddings [C, D], with the paper's scale.

    Args:
        learned: `thresholds` and `probabilities` as a bank takes them.
    """
    return ClassBank.from_rows(
        names,
        _unit_rows(global_rows),
        _unit_rows(local_rows),
        scale=np.full(len(names), SCORE_SCALE, np.float32),
        metadata=dict(metadata or {}),
        **learned,
    )


def _unit_rows(rows: Tensor) -> FloatArray:
    unit = torch.nn.functional.normalize(rows.detach().double().cpu(), dim=-1)
    return unit.float().contiguous().numpy()

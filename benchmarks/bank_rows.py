"""What a bank's rows lose in fewer bits: mAP and scores of the toy world's held-out pictures.

    python benchmarks/bank_rows.py

Rows are templates ("a photo of a dog."), one bank for both heads. They are rounded, and then used
in fp32, so this is the rounding alone; fp8 and int8 rows have a scale each. "Score" is the largest
difference of a merged score, as a share of the spread of all scores. No kernel reads fp8 or int8
rows yet.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from taidpt.clip.model import load_clip
from taidpt.evaluation.table import Table
from taidpt.features.pictures import encode_pictures
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.metrics import mean_average_precision
from taidpt.scores import global_scores, local_scores, merged_scores
from taidpt.texts.templates import PLAIN_TEMPLATE
from taidpt.toyworld.assets import load_heldout

LARGEST_FP8, LARGEST_INT8 = 448.0, 127.0


def scaled(rows: Tensor, largest: float, rounded: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows that are rounded after their largest number was scaled to `largest`, [C, D]."""
    scale = rows.abs().amax(dim=1, keepdim=True) / largest
    return rounded(rows / scale) * scale


FORMS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {
    "fp32": (4, lambda rows: rows),
    "fp16": (2, lambda rows: rows.half().float()),
    "bf16": (2, lambda rows: rows.bfloat16().float()),
    "int8": (1, lambda rows: scaled(rows, LARGEST_INT8, torch.round)),
    "fp8 (E4M3)": (
        1,
        lambda rows: scaled(rows, LARGEST_FP8, lambda x: x.to(torch.float8_e4m3fn).float()),
    ),
}


def main() -> None:
    """Print a row for each form."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--temperature", type=float, default=40.0, help="[default: 40]")
    options = parser.parse_args()
    clip = load_clip("toyworld", None)
    pictures, labels, names = load_heldout()
    features = encode_pictures(clip, pictures)
    rows = plain_class_embeddings(clip, list(names), [PLAIN_TEMPLATE])
    exact: Tensor | None = None
    lines = []
    for form, (size, rounded) in FORMS.items():
        kept = rounded(rows)
        local = local_scores(features.patch_features, kept, options.temperature)
        scores = merged_scores(global_scores(features.global_features, kept), local)
        exact = scores if exact is None else exact
        moved = float((scores - exact).abs().max() / exact.std())
        value = mean_average_precision(scores.numpy(), labels).value
        lines.append([form, str(size), f"{value:.2f}", f"{moved:.4f}"])
    print(Table(["rows", "bytes a number", "mAP", "score"], lines).markdown())


if __name__ == "__main__":
    main()

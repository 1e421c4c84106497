"""Commands that evaluate: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taidpt.evaluation import Evaluation
    from taidpt.metrics import MapSettings

__all__ = ["datasets", "ensemble", "evaluate"]

FILE = click.Path(path_type=Path)
_DIFFICULT = click.option(
    "--difficult",
    type=click.Choice(["negative", "ignore"]),
    default="negative",
    show_default=True,
    help="What a target of 0 is.",
)
_INTERPOLATION = click.option(
    "--interpolation",
    type=click.Choice(["none", "11point"]),
    default="none",
    show_default=True,
    help="Which average precision.",
)
_EMPTY_CLASS = click.option(
    "--empty-class",
    type=click.Choice(["skip", "zero"]),
    default="skip",
    show_default=True,
    help="How a class with no positive counts.",
)
_MERGE_WEIGHT = click.option(
    "--merge-weight", type=float, default=0.5, show_default=True, help="The local head's share."
)


@click.command("eval")
@click.option("--scores", "score_path", type=FILE, help=".npz with targets, global and local.")
@_MERGE_WEIGHT
@_DIFFICULT
@_INTERPOLATION
@_EMPTY_CLASS
@click.option("--top-k", type=click.IntRange(1), help="Add F1 when the K best tags are taken.")
@click.option("--threshold", type=float, help="Add F1 when all tags from this score on are taken.")
@click.option("--per-class", is_flag=True, help="Print each class too.")
@click.option("--json", "json_path", type=FILE, help="Write everything as JSON; - for stdout.")
@click.option("--markdown", "markdown_path", type=FILE, help="Write a table; - for stdout.")
def evaluate(**given: Any) -> None:
    """Evaluate saved scores with no model at all."""
    from taidpt.evaluation import Decision, ScoreFile, evaluate_scores

    if given["score_path"] is None:
        raise click.UsageError("give --scores FILE.npz")
    decisions = [Decision(top_k=given["top_k"])] if given["top_k"] else []
    if given["threshold"] is not None:
        decisions.append(Decision(threshold=given["threshold"]))
    scores = ScoreFile.load(given["score_path"])
    found = evaluate_scores(scores, given["merge_weight"], _map_settings(given), decisions)
    _print(found, found.lines(given["per_class"]), given)


def _map_settings(given: dict[str, Any]) -> MapSettings:
    from taidpt.metrics import MapSettings

    return MapSettings(given["difficult"], given["interpolation"], given["empty_class"])


def _print(found: Evaluation, lines: Any, given: dict[str, Any]) -> None:
    """The lines for a reader, unless standard output is taken by --json or --markdown."""
    import json

    json_path, markdown_path = given["json_path"], given["markdown_path"]
    if Path("-") not in (json_path, markdown_path):
        for line in lines:
            click.echo(line)
    _write(json_path, json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    _write(markdown_path, found.markdown())


@click.command("ensemble")
@click.argument("text_scores", type=FILE)
@click.argument("image_scores", type=FILE)
@click.option("--rate", type=float, required=True, help="Share of the image-tuned scores, 0 to 1.")
@_MERGE_WEIGHT
@_DIFFICULT
def ensemble(
    text_scores: Path, image_scores: Path, rate: float, merge_weight: float, difficult: str
) -> None:
    """Combine scores of text-tuned and image-tuned prompts, and print the mAP."""
    from taidpt.evaluation import ScoreFile, ensemble_scores
    from taidpt.metrics import MapSettings, mean_average_precision

    text, image = ScoreFile.load(text_scores), ScoreFile.load(image_scores)
    combined = ensemble_scores(text, image, rate, merge_weight)
    found = mean_average_precision(combined, text.targets, MapSettings(difficult))
    click.echo(f"ensemble at rate {rate:g}  mAP {found.value:.3f}")


@click.group("datasets")
def datasets() -> None:
    """Benchmark data sets in their official layouts."""


@datasets.command("check")
@click.argument("root", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(root: Path, as_json: bool) -> None:
    """Say what is there below ROOT, what is missing, and where each file comes from."""
    import json

    from taidpt.datasets import check_root

    checked = check_root(root)
    if as_json:
        click.echo(json.dumps([found.to_json() for found in checked], indent=2))
        return
    for found in checked:
        for line in found.lines():
            click.echo(line)


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    from taidpt.runtime.files import write_atomically

    write_atomically(path, text.encode())

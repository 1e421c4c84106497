"""Commands that evaluate: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    FILE,
    pick_picture,
    pick_settings,
    picture_options,
    shape_options,
    write_text,
)

if TYPE_CHECKING:
    from taidpt.evaluation.comparison import MethodTable
    from taidpt.evaluation.saved_scores import DecisionRule, Evaluation
    from taidpt.metrics import MapSettings

__all__ = ["ensemble", "evaluate"]

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


# what needs a data set; saved scores have none of it to say
_DATASET_OPTIONS = (
    click.option("--dataset", help="A data set instead: voc2007, coco2014, nuswide, toyworld …"),
    click.option("--root", type=FILE, help="Where the data sets lie."),
    click.option(
        "--split", default="test", show_default=True, help="Of the data set; the toy world has val."
    ),
    click.option("--methods", default="zsclip,clipdpt", show_default=True, help="With commas."),
    click.option("--model", help="open_clip's model name."),
    click.option("--pretrained", help="Weights: an open_clip tag, a file, or random."),
    click.option(
        "--texts", multiple=True, type=FILE, help="Captions, for methods made from texts."
    ),
    click.option("--prompts", multiple=True, type=FILE, help="Tuned prompts, by their own method."),
    CACHE,
    click.option("--seed", type=click.IntRange(0), default=0, help="Of training on --texts. [0]"),
    click.option("--lr", type=float, help="Learning rate of tuning on --texts."),
    click.option("--epochs", type=click.IntRange(1), help="Passes over --texts. [20]"),
    shape_options,
    picture_options,
    click.option("--save-scores", type=FILE, help="A folder for METHOD.npz."),
    click.option(
        "--save-banks", type=FILE, help="A folder for METHOD.bank, to give to taidpt-export."
    ),
)


def _dataset_options(command: Any) -> Any:
    for option in reversed(_DATASET_OPTIONS):
        command = option(command)
    return command


@click.command("eval")
@click.option("--scores", "score_path", type=FILE, help=".npz with targets, global and local.")
@_dataset_options
@_MERGE_WEIGHT
@_DIFFICULT
@_INTERPOLATION
@_EMPTY_CLASS
@click.option("--top-k", type=click.IntRange(1), help="Add F1 when the K best tags are taken.")
@click.option("--threshold", type=float, help="Add F1 when all tags from this score on are taken.")
@click.option("--per-class", is_flag=True, help="Print each class too.")
@click.option("--plots", type=FILE, help="A folder for plots.")
@click.option("--json", "json_path", type=FILE, help="Write everything as JSON; - for stdout.")
@click.option("--markdown", "markdown_path", type=FILE, help="Write a table; - for stdout.")
def evaluate(score_path: Path | None, **given: Any) -> None:
    """Evaluate saved scores with no model at all, or methods on a data set.

    \b
    taidpt eval --scores FILE.npz
    taidpt eval --dataset voc2007 --root DATA --model RN50-quickgelu --pretrained openai \\
      --texts captions_train2017.json --methods zsclip,clipdpt,tai,taidpt,centroids,linear
    taidpt eval --dataset toyworld --methods zsclip,clipdpt80,linear
    """
    if (score_path is None) == (given["dataset"] is None):
        raise click.UsageError("give --scores FILE.npz, or --dataset NAME --root FOLDER")
    if score_path is None:
        _evaluate_dataset(given)
    else:
        _refuse_dataset_options()
        _evaluate_scores(score_path, given)


def _refuse_dataset_options() -> None:
    """Saved scores were made already: an option that would have changed them must not be lost."""
    context = click.get_current_context()
    wanted = {"score_path", "merge_weight", "difficult", "interpolation", "empty_class", "top_k"}
    wanted |= {"threshold", "per_class", "plots", "json_path", "markdown_path"}
    default = click.core.ParameterSource.DEFAULT
    for option in context.command.params:
        name = option.name or ""
        if name not in wanted and context.get_parameter_source(name) != default:
            raise click.UsageError(f"{option.opts[0]} goes with --dataset, not with --scores")


def _evaluate_scores(score_path: Path, given: dict[str, Any]) -> None:
    from taidpt.evaluation.saved_scores import evaluate_scores
    from taidpt.score_file import ScoreFile

    scores, settings = ScoreFile.load(score_path), _map_settings(given)
    found = evaluate_scores(scores, given["merge_weight"], settings, _decisions(given))
    _print(found, found.lines(given["per_class"]), given)
    if given["plots"] is not None:
        from taidpt.evaluation.plots import Drawing, draw

        draw(Drawing.of_scores(scores, given["merge_weight"], settings), given["plots"])


def _evaluate_dataset(given: dict[str, Any]) -> None:
    from taidpt.evaluation.dataset_job import DatasetJob, rate_of, run_dataset_job
    from taidpt.progress import BarProgress
    from taidpt.tuning.settings import TuneSettings

    seed = given.pop("seed")
    tuning = pick_settings(TuneSettings(lr=rate_of(given["dataset"])), given)
    job = DatasetJob(
        **{key: given[key] for key in ("dataset", "root", "split", "model", "pretrained")},
        methods=tuple(name.strip() for name in given["methods"].split(",") if name.strip()),
        texts=given["texts"],
        prompts=given["prompts"],
        cache=given["cache"],
        seed=seed,
        tuning=tuning,
        merge_weight=given["merge_weight"],
        settings=_map_settings(given),
        store=pick_picture(given),
        banks=given["save_banks"],
        device=given["device"],
    )
    with BarProgress() as progress:
        found = run_dataset_job(job, progress)
    _print(found, found.lines(given["per_class"], _decisions(given)), given)
    if given["save_scores"] is not None:
        found.save_scores(given["save_scores"])
    if given["plots"] is not None:
        from taidpt.evaluation.plots import Drawing, draw

        draw(Drawing.of_comparison(found), given["plots"])


def _decisions(given: dict[str, Any]) -> list[DecisionRule]:
    from taidpt.evaluation.saved_scores import DecisionRule

    decisions = [DecisionRule(top_k=given["top_k"])] if given["top_k"] else []
    if given["threshold"] is not None:
        decisions.append(DecisionRule(threshold=given["threshold"]))
    return decisions


def _map_settings(given: dict[str, Any]) -> MapSettings:
    from taidpt.metrics import MapSettings

    return MapSettings(given["difficult"], given["interpolation"], given["empty_class"])


def _print(found: Evaluation | MethodTable, lines: Any, given: dict[str, Any]) -> None:
    """The lines for a reader, unless standard output is taken by --json or --markdown."""
    import json

    json_path, markdown_path = given["json_path"], given["markdown_path"]
    if Path("-") not in (json_path, markdown_path):
        for line in lines:
            click.echo(line)
    write_text(json_path, json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n")
    write_text(markdown_path, found.markdown())


@click.command("ensemble")
@click.argument("text_scores", type=FILE)
@click.argument("image_scores", type=FILE)
@click.option("--rate", type=float, required=True, help="Share of the image-tuned scores, 0 to 1.")
@_MERGE_WEIGHT
@_DIFFICULT
@_INTERPOLATION
@_EMPTY_CLASS
@click.option("-o", "--output", type=FILE, help="Write the combined scores as .npz.")
def ensemble(text_scores: Path, image_scores: Path, rate: float, **given: Any) -> None:
    """Combine scores of text-tuned and image-tuned prompts, and print the mAP.

    Each file's merged scores are brought to 0 … 1 as a whole; then (1 − rate) of the first is added
    to rate of the second.
    """
    from taidpt.evaluation.saved_scores import empty_note, ensemble_scores, evaluate_scores
    from taidpt.score_file import ScoreFile

    text, image = ScoreFile.load(text_scores), ScoreFile.load(image_scores)
    combined = ensemble_scores(text, image, rate, given["merge_weight"])
    found = evaluate_scores(combined, settings=_map_settings(given))
    click.echo(f"ensemble at rate {rate:g}  mAP {found.heads['merged'].value:.3f}")
    if found.empty_classes:
        click.echo(empty_note(found.empty_classes, len(found.names), found.settings))
    if given["output"] is not None:
        combined.save(given["output"])

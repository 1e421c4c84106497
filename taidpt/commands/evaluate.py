"""The commands `research eval` and `research ensemble`: parse, call the library, print."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    JSON,
    MARKDOWN,
    OFFICIAL_NAMES,
    PRETRAINED,
    ROOT,
    SEED,
    TEXTS,
    pick_picture,
    pick_settings,
    picture_options,
    shape_options,
    write_text,
)
from taidpt.runtime.options import PATH, path_option, stacked

if TYPE_CHECKING:
    from taidpt.evaluation.comparison import MethodTable
    from taidpt.evaluation.saved_scores import DecisionRule, Evaluation
    from taidpt.metrics import MapSettings

__all__ = ["ensemble", "evaluate"]

_metric_options = stacked(
    click.option(
        "--difficult",
        type=click.Choice(["negative", "ignore"]),
        default="negative",
        help="How a target of 0 counts.",
    ),
    click.option(
        "--interpolation",
        type=click.Choice(["none", "11point"]),
        default="none",
        help="Average precision over all positives, or VOC2007's at 11 recalls.",
    ),
    click.option(
        "--empty-class",
        type=click.Choice(["skip", "zero"]),
        default="skip",
        help="How a class without a positive counts.",
    ),
)
_MERGE_WEIGHT = path_option("--merge-weight", default=0.5)
# Options of --dataset; saved scores refuse them.
_dataset_options = stacked(
    path_option("--dataset"),
    ROOT,
    OFFICIAL_NAMES,
    path_option("--split", "The toy world also has val.", default="test"),
    click.option(
        "--methods",
        default="zsclip,clipdpt",
        help="Methods, separated by commas; a+b averages two.",
    ),
    path_option("--model", show_default="toyworld for its own data set"),
    PRETRAINED,
    TEXTS,
    path_option(
        "--prompts", "For the method that tuned it; may be given several times.", multiple=True
    ),
    CACHE,
    SEED,
    path_option("--lr", show_default="the data set's own"),
    path_option("--epochs", default=20),
    shape_options,
    picture_options,
    click.option("--save-scores", type=PATH, help="Folder for one METHOD.npz per method."),
    click.option(
        "--save-banks",
        type=PATH,
        help="Folder for one METHOD.bank per method, which taidpt-export takes.",
    ),
)


@click.command("eval")
@path_option("--scores", ".npz with targets, global and local.", to="score_path")
@_dataset_options
@path_option(
    "--score-transform",
    "With --scores: none, center or log_softmax of T times the scores; log_softmax:4 is the "
    "published one.",
    metavar="NAME",
    default="none",
)
@_MERGE_WEIGHT
@_metric_options
@path_option("--top", "Also prints their F1.", show_default="none")
@path_option("--threshold", "Also prints F1 of those above it.", show_default="none")
@click.option("--per-class", is_flag=True, help="Also print each class.")
@click.option("--plots", type=PATH, help="Folder for plots.")
@JSON
@MARKDOWN
def evaluate(score_path: Path | None, **given: Any) -> None:
    """Evaluate saved scores, or methods on a data set.

    \b
    taidpt research eval --scores FILE.npz
    taidpt research eval --dataset voc2007 --root DATA --model RN50-quickgelu --pretrained openai \\
      --texts captions_train2017.json --methods zsclip,clipdpt,tai,taidpt,centroids,linear
    taidpt research eval --dataset toyworld --methods zsclip,clipdpt80,linear
    """
    if (score_path is None) == (given["dataset"] is None):
        raise click.UsageError("give --scores FILE.npz, or --dataset NAME --root FOLDER")
    if score_path is None:
        if given["score_transform"] != "none":
            raise click.UsageError("--score-transform goes with --scores: data sets show them all")
        _evaluate_dataset(given)
    else:
        _refuse_dataset_options()
        _evaluate_scores(score_path, given)


def _refuse_dataset_options() -> None:
    """Refuse options that change how scores are computed: saved scores are computed already."""
    context = click.get_current_context()
    shared = {"score_path", "merge_weight", "difficult", "interpolation", "empty_class", "top"}
    shared |= {"threshold", "per_class", "plots", "json_path", "markdown_path", "score_transform"}
    default = click.core.ParameterSource.DEFAULT
    for option in context.command.params:
        name = option.name or ""
        if name not in shared and context.get_parameter_source(name) != default:
            raise click.UsageError(f"{option.opts[0]} goes with --dataset, not with --scores")


def _evaluate_scores(score_path: Path, given: dict[str, Any]) -> None:
    from taidpt.evaluation.saved_scores import ScaledTransform, evaluate_scores
    from taidpt.score_file import ScoreFile

    scores, settings = ScoreFile.load(score_path), _map_settings(given)
    transform = ScaledTransform.parse(given["score_transform"])
    found = evaluate_scores(scores, given["merge_weight"], settings, _decisions(given), transform)
    _print(found, found.lines(given["per_class"]), given)
    if given["plots"] is not None:
        from taidpt.evaluation.plots import Drawing, draw

        drawing = Drawing.of_scores(scores, given["merge_weight"], settings, transform)
        draw(drawing, given["plots"])


def _evaluate_dataset(given: dict[str, Any]) -> None:
    from taidpt.evaluation.dataset_job import DatasetJob, rate_of, run_dataset_job
    from taidpt.progress import BarProgress
    from taidpt.tuning.settings import TuneSettings

    seed = given.pop("seed")
    tuning = pick_settings(TuneSettings(lr=rate_of(given["dataset"])), given)
    as_given = {field.name for field in fields(DatasetJob)} & given.keys() - {"methods"}
    job = DatasetJob(
        **{name: given[name] for name in as_given},
        methods=tuple(name.strip() for name in given["methods"].split(",") if name.strip()),
        seed=seed,
        tuning=tuning,
        settings=_map_settings(given),
        store=pick_picture(given),
        banks=given["save_banks"],
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

    decisions = [DecisionRule(top_k=given["top"])] if given["top"] else []
    if given["threshold"] is not None:
        decisions.append(DecisionRule(threshold=given["threshold"]))
    return decisions


def _map_settings(given: dict[str, Any]) -> MapSettings:
    from taidpt.metrics import MapSettings

    return MapSettings(given["difficult"], given["interpolation"], given["empty_class"])


def _print(found: Evaluation | MethodTable, lines: Any, given: dict[str, Any]) -> None:
    """Print the lines, unless --json or --markdown writes to standard output."""
    from taidpt.runtime.storage.outputs import write_json

    json_path, markdown_path = given["json_path"], given["markdown_path"]
    if Path("-") not in (json_path, markdown_path):
        for line in lines:
            click.echo(line)
    write_json(json_path, found.to_json())
    write_text(markdown_path, found.markdown())


@click.command("ensemble")
@click.argument("text_scores", type=PATH)
@click.argument("image_scores", type=PATH)
@click.option("--rate", type=float, required=True, help="Share of IMAGE_SCORES, 0 to 1.")
@path_option("--merge-weight", "Of TEXT_SCORES.", default=0.5)
@click.option(
    "--image-merge-weight",
    type=float,
    show_default="--merge-weight",
    help="The same of IMAGE_SCORES; 1 takes DualCoOp's local head alone.",
)
@_metric_options
@path_option("--output", "The combined score file.")
def ensemble(text_scores: Path, image_scores: Path, rate: float, **given: Any) -> None:
    """Combine two score files, and print the mAP.

    The merged scores of each file are scaled to 0 … 1 as a whole; the combination is (1 − rate) ·
    TEXT_SCORES + rate · IMAGE_SCORES. They are of text-tuned and of image-tuned prompts.
    """
    from taidpt.evaluation.saved_scores import empty_note, ensemble_scores, evaluate_scores
    from taidpt.score_file import ScoreFile

    text, image = ScoreFile.load(text_scores), ScoreFile.load(image_scores)
    weights = given["merge_weight"], given["image_merge_weight"]
    combined = ensemble_scores(text, image, rate, *weights)
    found = evaluate_scores(combined, settings=_map_settings(given))
    click.echo(f"ensemble at rate {rate:g}  mAP {found.heads['merged'].value:.3f}")
    if found.empty_classes:
        click.echo(empty_note(found.empty_classes, len(found.names), found.settings))
    if given["output"] is not None:
        combined.save(given["output"])

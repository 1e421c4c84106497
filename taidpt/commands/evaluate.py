"""The commands `research eval` and `research ensemble`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    FILE,
    JSON,
    MARKDOWN,
    MODEL_HELP,
    OFFICIAL_NAMES,
    PRETRAINED,
    ROOT,
    SEED,
    TEXTS_HELP,
    pick_picture,
    pick_settings,
    picture_options,
    shape_options,
    stacked,
    write_text,
)

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
_MERGE_WEIGHT = click.option(
    "--merge-weight",
    type=float,
    default=0.5,
    help="Share of the local score in the merged score, 0 to 1.",
)
# Options of --dataset; saved scores refuse them.
_dataset_options = stacked(
    click.option("--dataset", help="Data set. voc2007, coco2014, nuswide, toyworld and others."),
    ROOT,
    OFFICIAL_NAMES,
    click.option(
        "--split",
        default="test",
        help="Split of the data set. The toy world also has val.",
    ),
    click.option(
        "--methods",
        default="zsclip,clipdpt",
        help="Methods, separated by commas; a+b averages two.",
    ),
    click.option("--model", show_default="toyworld for its own data set", help=MODEL_HELP),
    PRETRAINED,
    click.option("--texts", multiple=True, type=FILE, metavar="FILE", help=TEXTS_HELP),
    click.option(
        "--prompts",
        multiple=True,
        type=FILE,
        metavar="FILE",
        help="Prompts file. For the method that tuned it; may be given several times.",
    ),
    CACHE,
    SEED,
    click.option(
        "--lr",
        type=float,
        show_default="the data set's own",
        help="Learning rate after the first epoch.",
    ),
    click.option(
        "--epochs", type=click.IntRange(1), default=20, help="Passes over the texts or pictures."
    ),
    shape_options,
    picture_options,
    click.option("--save-scores", type=FILE, help="Folder for one METHOD.npz per method."),
    click.option(
        "--save-banks",
        type=FILE,
        help="Folder for one METHOD.bank per method, which taidpt-export takes.",
    ),
)


@click.command("eval")
@click.option(
    "--scores",
    "score_path",
    type=FILE,
    metavar="FILE",
    help="Score file. .npz with targets, global and local.",
)
@_dataset_options
@click.option(
    "--score-transform",
    metavar="NAME",
    default="none",
    help="Transform of a picture's scores over its tags. With --scores: none, center or "
    "log_softmax of T times the scores; log_softmax:4 is the published one.",
)
@_MERGE_WEIGHT
@_metric_options
@click.option(
    "--top",
    type=click.IntRange(1),
    show_default="none",
    help="N best tags of each picture. Also prints their F1.",
)
@click.option(
    "--threshold",
    type=float,
    show_default="none",
    help="One threshold for all tags. Also prints F1 of those above it.",
)
@click.option("--per-class", is_flag=True, help="Also print each class.")
@click.option("--plots", type=FILE, help="Folder for plots.")
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
        official_names=given["official_names"],
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
@click.argument("text_scores", type=FILE)
@click.argument("image_scores", type=FILE)
@click.option("--rate", type=float, required=True, help="Share of IMAGE_SCORES, 0 to 1.")
@click.option(
    "--merge-weight",
    type=float,
    default=0.5,
    help="Share of the local score in the merged score, 0 to 1. Of TEXT_SCORES.",
)
@click.option(
    "--image-merge-weight",
    type=float,
    show_default="--merge-weight",
    help="The same of IMAGE_SCORES; 1 takes DualCoOp's local head alone.",
)
@_metric_options
@click.option("-o", "--output", type=FILE, help="What to write. The combined score file.")
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

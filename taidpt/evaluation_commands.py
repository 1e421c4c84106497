"""Commands that evaluate: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from taidpt.comparison import Comparison
    from taidpt.evaluation import Decision, Evaluation
    from taidpt.metrics import MapSettings

__all__ = ["datasets", "ensemble", "evaluate", "reproduce", "tune_pictures"]

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


_EVAL_OPTIONS = (
    click.option("--scores", "score_path", type=FILE, help=".npz with targets, global and local."),
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
    click.option("--cache", type=FILE, help="Where features are kept. [~/.cache/taidpt]"),
    click.option("--seed", type=click.IntRange(0), default=0, help="Of tuning on --texts. [0]"),
    click.option("--lr", type=float, help="Learning rate of tuning on --texts."),
    click.option("--plots", type=FILE, help="A folder for plots of a data set."),
    click.option("--save-scores", type=FILE, help="A folder for METHOD.npz."),
    click.option(
        "--save-banks", type=FILE, help="A folder for METHOD.bank, to give to taidpt-export."
    ),
)


def _with_eval_options(command: Any) -> Any:
    for option in reversed(_EVAL_OPTIONS):
        command = option(command)
    return command


@click.command("eval")
@_with_eval_options
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
    """Evaluate saved scores with no model at all, or methods on a data set.

    \b
    taidpt eval --scores FILE.npz
    taidpt eval --dataset voc2007 --root DATA --model RN50-quickgelu --pretrained openai \\
      --texts captions_train2017.json --methods zsclip,clipdpt,tai,taidpt,centroids,linear
    taidpt eval --dataset toyworld --methods zsclip,clipdpt80,linear
    """
    if (given["score_path"] is None) == (given["dataset"] is None):
        raise click.UsageError("give --scores FILE.npz, or --dataset NAME --root FOLDER")
    if given["dataset"] is not None:
        _evaluate_dataset(given)
        return
    from taidpt.evaluation import ScoreFile, evaluate_scores

    scores = ScoreFile.load(given["score_path"])
    settings = _map_settings(given)
    found = evaluate_scores(scores, given["merge_weight"], settings, _decisions(given))
    _print(found, found.lines(given["per_class"]), given)


def _evaluate_dataset(given: dict[str, Any]) -> None:
    from taidpt.benchmark import BenchmarkJob, run_benchmark
    from taidpt.progress import RichProgress

    job = BenchmarkJob(
        **{
            key: given[key]
            for key in ("dataset", "root", "split", "model", "pretrained", "seed", "lr")
        },
        methods=tuple(name.strip() for name in given["methods"].split(",") if name.strip()),
        texts=given["texts"],
        prompts=given["prompts"],
        cache=given["cache"],
        banks=given["save_banks"],
        merge_weight=given["merge_weight"],
        settings=_map_settings(given),
    )
    with RichProgress() as progress:
        found = run_benchmark(job, progress)
    _print(found, found.lines(given["per_class"], _decisions(given)), given)
    if given["save_scores"] is not None:
        found.save_scores(given["save_scores"])
    if given["plots"] is not None:
        from taidpt.plots import draw_comparison

        draw_comparison(found, given["plots"])


def _decisions(given: dict[str, Any]) -> list[Decision]:
    from taidpt.evaluation import Decision

    decisions = [Decision(top_k=given["top_k"])] if given["top_k"] else []
    if given["threshold"] is not None:
        decisions.append(Decision(threshold=given["threshold"]))
    return decisions


def _map_settings(given: dict[str, Any]) -> MapSettings:
    from taidpt.metrics import MapSettings

    return MapSettings(given["difficult"], given["interpolation"], given["empty_class"])


def _print(found: Evaluation | Comparison, lines: Any, given: dict[str, Any]) -> None:
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


@click.command("tune-pictures")
@click.option("--dataset", required=True, help="voc2007, coco2014, nuswide, voc-mlt …")
@click.option("--root", required=True, type=FILE, help="Where the data sets lie.")
@click.option("--method", type=click.Choice(["coop", "dualcoop"]), default="dualcoop")
@click.option("--model", required=True, help="open_clip's model name, or toyworld.")
@click.option("--pretrained", required=True, help="Weights: an open_clip tag, a file, or random.")
@click.option("--known", type=float, default=1.0, show_default=True, help="Known labels' share.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all chance.")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the pictures. [50]")
@click.option("--lr", type=float, help="Learning rate after the first epoch. [2e-3]")
@click.option("--cache", type=FILE, help="Where features are kept. [~/.cache/taidpt]")
@click.option("-o", "--output", required=True, type=FILE, help="Prompts file.")
def tune_pictures(**given: Any) -> None:
    """Tune prompts on a data set's train pictures, with all or some of their labels."""
    from taidpt.picture_tuning import PictureTuneJob, run_picture_job
    from taidpt.progress import RichProgress

    with RichProgress() as progress:
        prompts = run_picture_job(PictureTuneJob(**given), progress)
    click.echo(f"{given['output']}: {len(prompts.tags)} tags by {given['method']}", err=True)


@click.command("reproduce")
@click.argument("name", required=False)
@click.option("--root", type=FILE, help="Where the data sets lie.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs.")
@click.option("--cache", type=FILE, help="Where features are kept. [~/.cache/taidpt]")
@click.option("--without-leak", is_flag=True, help="Leave out captions of COCO's test pictures.")
@click.option("--dry-run", is_flag=True, help="Print the plan and end.")
@click.option("-o", "--output", type=FILE, help="The record. [NAME.json]")
def reproduce(name: str | None, **given: Any) -> None:
    """Run a published result again; without NAME, list them."""
    from taidpt import recipes
    from taidpt.progress import RichProgress

    root, seeds, leak_free = given["root"], given["seeds"], given["without_leak"]
    if name is None or given["dry_run"]:
        for recipe in recipes.RECIPES if name is None else (name,):
            for line in recipes.plan(recipe, root, seeds if name else 0, leak_free):
                if name or not line.startswith(" "):
                    click.echo(line)
        return
    job = recipes.job_of(name, root, given["cache"], leak_free)
    with RichProgress() as progress:
        found = recipes.reproduce(name, job, seeds, progress)
    for line in found.lines():
        click.echo(line)
    output = given["output"] or Path(f"{name}.json")
    found.save(output)
    click.echo(f"record: {output}", err=True)


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

"""The commands `tune-pictures`, `reproduce` and `datasets`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    DEVICE,
    FILE,
    MARKDOWN_HELP,
    MODEL_HELP,
    OFFICIAL_NAMES,
    PRETRAINED,
    RESUME,
    ROOT,
    pick_picture,
    pick_settings,
    picture_options,
    setting,
    shape_options,
    write_text,
)

if TYPE_CHECKING:
    from taidpt.evaluation.reproduction import ReproductionJob

__all__ = ["datasets", "reproduce", "tune_pictures"]


@click.command("tune-pictures")
@click.option(
    "--dataset", required=True, help="Data set: voc2007, coco2014, nuswide, toyworld and others."
)
@ROOT
@click.option(
    "--split",
    default="train",
    show_default=True,
    help="Split to tune on; LaSO's few-shot sets also have train-2 to train-10.",
)
@click.option(
    "--method",
    type=click.Choice(["coop", "dualcoop"]),
    default="dualcoop",
    show_default=True,
    help="CoOp: one prompt per tag; DualCoOp: a positive and a negative one.",
)
@click.option("--model", help=f"{MODEL_HELP} [default: toyworld for its own data set]")
@PRETRAINED
@OFFICIAL_NAMES
@click.option(
    "--known",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the labels that tuning sees, 0 to 1.",
)
@click.option(
    "--shots", type=click.IntRange(1), help="Pictures of each class. [default: all pictures]"
)
@click.option(
    "--augment",
    type=click.Choice(["none", "crop", "cutout"]),
    default="none",
    show_default=True,
    help="Change pictures in every epoch: random crops or cutout, with AutoAugment and flips.",
)
@picture_options
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of every random number generator.",
)
@setting("--epochs", click.IntRange(1), "Passes over the pictures.", "50")
@setting("--batch", click.IntRange(1), "Pictures per step.", "64; CoOp: 32")
@setting("--lr", float, "Learning rate after the first epoch.", "2e-3")
@shape_options
@RESUME
@CACHE
@click.option("-o", "--output", required=True, type=FILE, help="Prompts file to write.")
def tune_pictures(method: str, **given: Any) -> None:
    """Tune prompts on a data set's training pictures, with all or some of their labels.

    \b
    DualCoOp with a tenth of the labels, as its authors ran it:
    taidpt tune-pictures --dataset voc2007 --root DATA --model RN101-quickgelu \\
      --pretrained openai --known 0.1 --size 448 --resize whole --augment crop -o dual.safetensors
    """
    from taidpt.progress import BarProgress
    from taidpt.tuning.picture_job import PictureTuneJob, run_picture_job
    from taidpt.tuning.settings import settings_of

    settings = pick_settings(settings_of(method), given)
    job = PictureTuneJob(settings=settings, store=pick_picture(given), **given)
    with BarProgress() as progress:
        prompts = run_picture_job(job, progress)
    losses = prompts.provenance["losses"]
    click.echo(
        f"{job.output}: {len(prompts.tags)} tags by {method}, mean loss {losses[0]:.4g} in the "
        f"first epoch, {losses[-1]:.4g} in the last",
        err=True,
    )


@click.command("reproduce")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@ROOT
@click.option("--model", help=f"{MODEL_HELP} [default: the recipe's]")
@click.option(
    "--pretrained",
    help="Weights: an open_clip tag, a file, or random[:SEED]. [default: the recipe's, or those of "
    "the model's folder]",
)
@OFFICIAL_NAMES
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs, from seed 0 on."
)
@CACHE
@click.option(
    "--without-leak",
    is_flag=True,
    help="Leave out captions that describe COCO's test pictures. [default: off, as in the paper]",
)
@click.option(
    "--split",
    default="test",
    show_default=True,
    help="Split to evaluate on; the toy world also has val.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Processes that read pictures; 0 reads in the main process.",
)
@DEVICE
@click.option("--dry-run", is_flag=True, help="Print the steps and stop.")
@click.option(
    "-o",
    "--output",
    type=FILE,
    default=Path(),
    show_default=True,
    help="Folder for one record NAME.json per result.",
)
@click.option("--markdown", "markdown_path", type=FILE, help=MARKDOWN_HELP)
def reproduce(
    names: tuple[str, ...],
    output: Path,
    dry_run: bool,
    markdown_path: Path | None,
    without_leak: bool,
    **given: Any,
) -> None:
    """Reproduce published results. Without a NAME, list them; 'toyworld-*' selects several.

    \b
    taidpt reproduce voc2007-taidpt --root DATA
    taidpt reproduce voc2007-ensemble-10 --root DATA --dry-run
    """
    from taidpt.evaluation.recipes import RECIPES, find_recipes
    from taidpt.evaluation.reproduction import ReproductionJob, plan

    job = ReproductionJob(leak_free=without_leak, **given)
    chosen = [name for pattern in names for name in find_recipes(pattern)]
    if not names:
        for name in RECIPES:
            click.echo(next(plan(name, job)))
    elif dry_run:
        for name in chosen:
            for line in plan(name, job):
                click.echo(line)
    else:
        _reproduce(chosen, job, output, markdown_path)


def _reproduce(
    names: list[str], job: ReproductionJob, output: Path, markdown_path: Path | None
) -> None:
    from taidpt.evaluation import reproduction
    from taidpt.progress import BarProgress

    output.mkdir(parents=True, exist_ok=True)
    done = []
    for name in names:
        with BarProgress() as progress:
            result = reproduction.reproduce(name, job, progress)
        done.append(result)
        if markdown_path != Path("-"):
            for line in result.lines():
                click.echo(line)
        path = output / f"{name}.json"
        result.save(path)
        click.echo(f"record: {path}", err=True)
    write_text(markdown_path, reproduction.markdown(done))


@click.group("datasets")
def datasets() -> None:
    """Benchmark data sets in their official layouts."""


@datasets.command("check")
@click.argument("root", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def check(root: Path, as_json: bool) -> None:
    """List what ROOT holds of each data set, what is missing, and where to get it."""
    import json

    from taidpt.datasets import check_root

    checked = check_root(root)
    if as_json:
        click.echo(json.dumps([dataset.to_json() for dataset in checked], indent=2))
        return
    for dataset in checked:
        for line in dataset.lines():
            click.echo(line)

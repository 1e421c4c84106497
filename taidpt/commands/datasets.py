"""The commands `research tune-pictures`, `reproduce` and `datasets`: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    DEVICE,
    JSON,
    MARKDOWN,
    OFFICIAL_NAMES,
    PRETRAINED,
    RESUME,
    ROOT,
    SEED,
    pick_picture,
    pick_settings,
    picture_options,
    shape_options,
    write_text,
)
from taidpt.runtime.options import path_option

if TYPE_CHECKING:
    from taidpt.evaluation.reproduction import ReproductionJob

__all__ = ["datasets", "reproduce", "tune_pictures"]


@click.command("tune-pictures")
@path_option("--dataset", required=True)
@ROOT
@path_option("--split", "LaSO's few-shot sets also have train-2 to train-10.", default="train")
@path_option(
    "--method",
    "CoOp: one per tag; DualCoOp: a positive and a negative one.",
    type=click.Choice(["coop", "dualcoop"]),
    default="dualcoop",
)
@path_option("--model", show_default="toyworld for its own data set")
@PRETRAINED
@OFFICIAL_NAMES
@click.option(
    "--known",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Share of the labels that tuning sees, 0 to 1.",
)
@click.option("--shots", type=click.IntRange(1), show_default="all", help="Pictures of each class.")
@click.option(
    "--augment",
    type=click.Choice(["none", "crop", "cutout"]),
    default="none",
    help="Change pictures in every epoch: random crops or cutout, with AutoAugment and flips.",
)
@picture_options
@SEED
@path_option("--epochs", default=50)
@path_option("--batch", show_default="64; CoOp: 32")
@path_option("--lr", default=2e-3)
@shape_options
@RESUME
@CACHE
@path_option("--output", "The prompts file.", required=True)
def tune_pictures(method: str, **given: Any) -> None:
    """Tune prompts on a data set's training pictures.

    \b
    DualCoOp with a tenth of the labels, as its authors ran it:
    taidpt research tune-pictures --dataset voc2007 --root DATA --model RN101-quickgelu \\
      --pretrained openai --known 0.1 --size 448 --fit whole --augment crop -o dual.safetensors
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
@path_option("--model", show_default="the recipe's")
@path_option(
    "--pretrained",
    "An open_clip tag, a file, or random[:SEED].",
    show_default="the recipe's, or those of the model's folder",
)
@OFFICIAL_NAMES
@click.option("--seeds", type=click.IntRange(1), default=3, help="Runs, from seed 0 on.")
@CACHE
@click.option(
    "--without-leak",
    is_flag=True,
    help="Leave out captions that describe COCO's test pictures; the paper keeps them.",
)
@path_option("--split", "The toy world also has val.", default="test")
@path_option("--workers", "0 reads in the main process.", type=click.IntRange(0), default=0)
@DEVICE
@path_option("--dry-run")
@path_option("--output", "A folder for one record NAME.json per result.", default=Path())
@MARKDOWN
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
    taidpt research reproduce voc2007-taidpt --root DATA
    taidpt research reproduce voc2007-ensemble-10 --root DATA --dry-run
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


@click.command("datasets")
@path_option("--root", required=True)
@JSON
def datasets(root: Path, json_path: Path | None) -> None:
    """List which benchmark data sets a folder holds.

    Also what is missing, and where to get it.
    """
    from taidpt.datasets import check_root
    from taidpt.runtime.storage.outputs import write_json

    checked = check_root(root)
    if str(json_path) != "-":
        for dataset in checked:
            for line in dataset.lines():
                click.echo(line)
    write_json(json_path, [dataset.to_json() for dataset in checked])

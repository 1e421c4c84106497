"""Commands around data sets: tune on their pictures, reproduce published results, check files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    CACHE,
    DEVICE,
    FILE,
    RESUME,
    pick_picture,
    pick_settings,
    picture_options,
    shape_options,
    write_text,
)

if TYPE_CHECKING:
    from taidpt.evaluation.reproduction import ReproductionJob

__all__ = ["datasets", "reproduce", "tune_pictures"]


@click.command("tune-pictures")
@click.option("--dataset", required=True, help="voc2007, coco2014, nuswide, toyworld …")
@click.option("--root", type=FILE, help="Where the data sets lie; the toy world needs none.")
@click.option(
    "--split", default="train", show_default=True, help="Of the data set; LaSO's has train-2 … 10."
)
@click.option("--method", type=click.Choice(["coop", "dualcoop"]), default="dualcoop")
@click.option("--model", help="open_clip's model name, or toyworld.")
@click.option("--pretrained", help="Weights: an open_clip tag, a file, or random.")
@click.option("--known", type=float, default=1.0, show_default=True, help="Known labels' share.")
@click.option("--shots", type=click.IntRange(1), help="So many pictures of each class. [all]")
@click.option(
    "--augment",
    type=click.Choice(["none", "crop", "cutout"]),
    default="none",
    show_default=True,
    help="Change pictures each time: random crops or cutout, with AutoAugment and flips.",
)
@picture_options
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of every random number generator.",
)
@click.option("--epochs", type=click.IntRange(1), help="Passes over the pictures. [50]")
@click.option("--batch", type=click.IntRange(1), help="Pictures a step. [DualCoOp 64, CoOp 32]")
@click.option("--lr", type=float, help="Learning rate after the first epoch. [2e-3]")
@shape_options
@RESUME
@CACHE
@click.option("-o", "--output", required=True, type=FILE, help="Prompts file.")
def tune_pictures(method: str, **given: Any) -> None:
    """Tune prompts on a data set's train pictures, with all or some of their labels.

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
@click.option("--root", type=FILE, help="Where the data sets lie.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs.")
@CACHE
@click.option("--without-leak", is_flag=True, help="Leave out captions of COCO's test pictures.")
@click.option(
    "--split", default="test", show_default=True, help="To evaluate on; the toy world has val."
)
@click.option("--workers", type=click.IntRange(0), default=0, help="Processes that read pictures.")
@DEVICE
@click.option("--dry-run", is_flag=True, help="Print the plan and end.")
@click.option(
    "-o", "--output", type=FILE, default=Path(), help="Folder for the records NAME.json. [.]"
)
@click.option("--markdown", "markdown_path", type=FILE, help="Write a table; - for stdout.")
def reproduce(
    names: tuple[str, ...],
    output: Path,
    dry_run: bool,
    markdown_path: Path | None,
    without_leak: bool,
    **given: Any,
) -> None:
    """Run published results again; without a NAME, list them. 'toyworld-*' is all of a kind.

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
            found = reproduction.reproduce(name, job, progress)
        done.append(found)
        if markdown_path != Path("-"):
            for line in found.lines():
                click.echo(line)
        path = output / f"{name}.json"
        found.save(path)
        click.echo(f"record: {path}", err=True)
    write_text(markdown_path, reproduction.markdown(done))


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

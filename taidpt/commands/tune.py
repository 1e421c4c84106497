"""The command `taidpt tune`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    DEVICE,
    PRETRAINED,
    RESUME,
    SEED,
    TEXTS,
    pick_settings,
    shape_options,
)
from taidpt.runtime.options import path_option

if TYPE_CHECKING:
    from taidpt.texts.tags import TagSet

__all__ = ["tune"]


@click.command()
@path_option("--model", "Required, except with --check.")
@PRETRAINED
@path_option("--tags", required=True)
@TEXTS
@click.option("--from-names", is_flag=True, help="Add sentences made from the tags' names.")
@click.option("--check", is_flag=True, help="Only report which tags the texts name, how often.")
@click.option(
    "--quote",
    "examples",
    type=click.IntRange(0, 3),
    default=1,
    help="With --check: texts shown per tag.",
)
@click.option(
    "--background/--no-background",
    default=None,
    show_default="with up to three tags",
    help="Let common nouns compete with the tags. They are not in the result.",
)
@path_option("--output", "The prompts file; required, except with --check.")
@path_option(
    "--method",
    "taidpt: a global and a local one; tai: the global one alone.",
    type=click.Choice(["taidpt", "tai"]),
    default="taidpt",
)
@path_option("--epochs", default=20)
@path_option("--batch", default=512)
@path_option("--lr", default=1e-4)
@click.option(
    "--held-out",
    type=float,
    default=0.1,
    help="Share of the texts kept to estimate thresholds, 0 to 1.",
)
@click.option(
    "--text-temperature",
    type=float,
    default=50.0,
    help="Softmax sharpness over a caption's tokens.",
)
@click.option(
    "--image-temperature",
    type=float,
    default=40.0,
    help="Softmax sharpness over a picture's patches.",
)
@SEED
@shape_options
@RESUME
@path_option("--cache", show_default="in memory")
@click.option(
    "--cache-precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    help="Number format of kept caption features.",
)
@DEVICE
@path_option("--threads", show_default="torch's choice")
def tune(
    tags: str, check: bool, examples: int, output: Path, threads: int | None, **arguments: Any
) -> None:
    """Tune prompts for your tags on texts alone.

    Prints the loss and the time left on standard error. A stopped or killed run continues with
    --resume and gives the same prompts as an uninterrupted one (on a CPU, with equal --threads).
    """
    from taidpt.texts.tags import TagSet

    tag_set = TagSet.parse(tags)
    if check:
        _check(tag_set, arguments["texts"], examples)
        return
    for name, value in (("--model", arguments["model"]), ("-o", output)):
        if value is None:
            raise click.UsageError(f"Missing option '{name}'.")
    import torch

    from taidpt.progress import BarProgress
    from taidpt.tuning.execution import is_main_process
    from taidpt.tuning.settings import TuneSettings
    from taidpt.tuning.text_job import TuneJob, run_job

    if threads:
        torch.set_num_threads(threads)
    settings = pick_settings(TuneSettings(), arguments)
    with BarProgress() as progress:
        prompts = run_job(
            TuneJob(tags=tag_set, output=output, settings=settings, **arguments), progress
        )
    if not is_main_process():
        return
    losses = prompts.provenance["losses"]
    click.echo(
        f"{output}: {len(prompts.tags)} tags, mean loss {losses[0]:.4g} in the first epoch, "
        f"{losses[-1]:.4g} in the last",
        err=True,
    )
    click.echo(f"next: taidpt-export {output} -o {output.with_suffix('.taidpt')}", err=True)


def _check(tags: TagSet, texts: tuple[Path, ...], examples: int) -> None:
    """Print which tags the texts name."""
    from taidpt.texts.captions import read_texts
    from taidpt.texts.labels import LabelReport, label_texts

    report = LabelReport(tags)
    for path in texts:
        for _ in label_texts(read_texts(path), tags, report):
            pass
    for line in report.lines(examples):
        click.echo(line)

"""The command `taidpt tune`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.commands.options import (
    DEVICE,
    FILE,
    MODEL_HELP,
    PRETRAINED,
    RESUME,
    SEED,
    TEXTS_HELP,
    pick_settings,
    shape_options,
)

if TYPE_CHECKING:
    from taidpt.texts.tags import TagSet

__all__ = ["tune"]


@click.command()
@click.option("--model", help=f"{MODEL_HELP} Required, except with --check.")
@PRETRAINED
@click.option(
    "--tags",
    metavar="TAGS",
    required=True,
    help='Tag list: "dog, hard hat", a tags.yaml, or a .txt with a tag a line.',
)
@click.option("--texts", multiple=True, type=FILE, metavar="FILE", help=TEXTS_HELP)
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
@click.option(
    "-o",
    "--output",
    type=FILE,
    help="What to write. The prompts file; required, except with --check.",
)
@click.option(
    "--method",
    type=click.Choice(["taidpt", "tai"]),
    default="taidpt",
    help="How prompts are tuned. taidpt: a global and a local one; tai: the global one alone.",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=20, help="Passes over the texts or pictures."
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=512,
    help="Texts, pictures or frames computed at once.",
)
@click.option("--lr", type=float, default=1e-4, help="Learning rate after the first epoch.")
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
@click.option(
    "--cache",
    type=FILE,
    metavar="FOLDER",
    show_default="in memory",
    help="Folder where features are kept.",
)
@click.option(
    "--cache-precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    help="Number format of kept caption features.",
)
@DEVICE
@click.option(
    "--threads", type=click.IntRange(1), show_default="torch's choice", help="CPU threads."
)
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

"""The commands `taidpt texts` and `taidpt tune`: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from taidpt.commands.options import (
    DEVICE,
    FILE,
    MODEL_HELP,
    PRETRAINED,
    RESUME,
    TEXTS_HELP,
    pick_settings,
    setting,
    shape_options,
)

__all__ = ["texts", "tune"]

_TAGS = click.option(
    "--tags", type=FILE, required=True, help="Tag list: tags.yaml, or a .txt with a tag a line."
)


@click.command("texts")
@_TAGS
@click.option("--texts", "text_paths", type=FILE, required=True, multiple=True, help=TEXTS_HELP)
@click.option(
    "--examples",
    type=click.IntRange(0, 3),
    default=1,
    show_default=True,
    help="Texts shown for each tag.",
)
def texts(tags: Path, text_paths: tuple[Path, ...], examples: int) -> None:
    """Report which tags your texts name, and how often."""
    from taidpt.texts.captions import read_texts
    from taidpt.texts.labels import LabelReport, label_texts
    from taidpt.texts.tags import TagSet

    tag_set = TagSet.load(tags)
    report = LabelReport(tag_set)
    for path in text_paths:
        for _ in label_texts(read_texts(path), tag_set, report):
            pass
    for line in report.lines(examples):
        click.echo(line)


@click.command()
@click.option("--model", required=True, help=MODEL_HELP)
@PRETRAINED
@_TAGS
@click.option("--texts", multiple=True, type=FILE, help=TEXTS_HELP)
@click.option("--from-names", is_flag=True, help="Add sentences made from the tags' names.")
@setting(
    "--background/--no-background",
    bool,
    "Let common nouns compete with the tags in tuning; they are not in the result.",
    "with up to three tags",
)
@click.option("-o", "--output", required=True, type=FILE, help="Prompts file to write.")
@setting(
    "--method",
    click.Choice(["taidpt", "tai"]),
    "Tune a global and a local prompt, or the global one alone.",
    "taidpt",
)
@setting("--epochs", click.IntRange(1), "Passes over the texts.", "20")
@setting("--batch", click.IntRange(1), "Texts per step.", "512")
@setting("--lr", float, "Learning rate after the first epoch.", "1e-4")
@setting("--held-out", float, "Share of the texts kept to estimate thresholds, 0 to 1.", "0.1")
@setting("--text-temperature", float, "Softmax sharpness over a caption's tokens.", "50")
@setting("--image-temperature", float, "Softmax sharpness over a picture's patches.", "40")
@setting("--seed", click.IntRange(0), "Seed of every random number generator.", "0")
@shape_options
@RESUME
@click.option(
    "--cache", type=FILE, help="Folder where caption features are kept. [default: in memory]"
)
@click.option(
    "--cache-precision",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Number format of kept caption features.",
)
@DEVICE
@click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: torch's choice]")
def tune(output: Path, threads: int | None, **arguments: Any) -> None:
    """Tune prompts for your tags on texts alone.

    Prints the loss and the time left on standard error. A stopped or killed run continues with
    --resume and gives the same prompts as an uninterrupted one (on a CPU, with equal --threads).
    """
    import torch

    from taidpt.progress import BarProgress
    from taidpt.tuning.execution import is_main_process
    from taidpt.tuning.settings import TuneSettings
    from taidpt.tuning.text_job import TuneJob, run_job

    if threads:
        torch.set_num_threads(threads)
    settings = pick_settings(TuneSettings(), arguments)
    with BarProgress() as progress:
        prompts = run_job(TuneJob(output=output, settings=settings, **arguments), progress)
    if not is_main_process():
        return
    losses = prompts.provenance["losses"]
    click.echo(
        f"{output}: {len(prompts.tags)} tags, mean loss {losses[0]:.4g} in the first epoch, "
        f"{losses[-1]:.4g} in the last",
        err=True,
    )
    click.echo(f"next: taidpt-export {output} -o {output.with_suffix('.taidpt')}", err=True)

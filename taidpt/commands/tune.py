"""Commands of the middle floor: parse, call the library, print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from taidpt.features.picture_store import StoreSettings
    from taidpt.tuning.settings import TuneSettings

__all__ = [
    "FILE",
    "picture_options",
    "shape_options",
    "take_picture",
    "take_settings",
    "texts",
    "tune",
    "write_text",
]

FILE = click.Path(path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])


@click.command("texts")
@click.option("--tags", "tags_path", type=FILE, required=True, help="tags.yaml, or a tag a line.")
@click.option(
    "--texts",
    "text_paths",
    type=FILE,
    required=True,
    multiple=True,
    help="Captions: text, JSONL or COCO JSON, also .gz; may be given several times.",
)
@click.option("--examples", type=click.IntRange(0, 3), default=1, help="Examples a tag.")
def texts(tags_path: Path, text_paths: tuple[Path, ...], examples: int) -> None:
    """Report which tags your texts name, and how often."""
    from taidpt.texts.captions import read_texts
    from taidpt.texts.labels import LabelReport, label_texts
    from taidpt.texts.tags import TagSet

    tags = TagSet.load(tags_path)
    report = LabelReport(tags)
    for path in text_paths:
        for _ in label_texts(read_texts(path), tags, report):
            pass
    for line in report.lines(examples):
        click.echo(line)


def _setting(flag: str, kind: Any, text: str, **more: Any) -> Callable[[Command], Command]:
    """An option of tuning; without it the library's default stands, which the text names."""
    return click.option(flag, type=kind, default=None, help=text, **more)


_DEVICE = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
# the prompts' shape and the loss, for every command that tunes
_SHAPE_OPTIONS = (
    _setting(
        "--loss",
        click.Choice(["ranking", "asymmetric", "bce", "focal"]),
        "Loss over a text's or picture's tags. [the method's own]",
    ),
    _setting("--context-tokens", click.IntRange(1), "Context vectors a prompt. [16]"),
    _setting(
        "--name-position",
        click.Choice(["end", "middle", "front"]),
        "Where the tag stands in its prompt. [end]",
    ),
    _setting(
        "--class-specific/--shared",
        bool,
        "A context for each tag, or one for all. [shared; DualCoOp: class-specific]",
    ),
    _setting(
        "--precision", click.Choice(["fp32", "bf16", "fp16"]), "Mixed from fp32 on down. [fp32]"
    ),
)


# what of a picture a model is shown, for every command that encodes pictures
_PICTURE_OPTIONS = (
    click.option("--size", type=click.IntRange(1), help="Side of the pictures. [the model's own]"),
    click.option(
        "--resize",
        type=click.Choice(["crop", "whole"]),
        default="crop",
        show_default=True,
        help="The centre after a resize of the short side, or both sides resized.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Processes that read pictures.",
    ),
    _DEVICE,
)


def shape_options(command: Command) -> Command:
    """Give a command the options of the prompts' shape and of the loss."""
    for option in reversed(_SHAPE_OPTIONS):
        command = option(command)
    return command


def picture_options(command: Command) -> Command:
    """Give a command the options of how pictures are shown to a model."""
    for option in reversed(_PICTURE_OPTIONS):
        command = option(command)
    return command


def take_picture(given: dict[str, Any]) -> StoreSettings:
    """What the options of `picture_options` say; takes it out of `given`, but for the device."""
    from taidpt.encoders.picture_input import PictureInput
    from taidpt.features.picture_store import StoreSettings

    picture = PictureInput(given.pop("size"), given.pop("resize"))
    return StoreSettings(workers=given.pop("workers"), picture=picture)


def take_settings(settings: TuneSettings, given: dict[str, Any]) -> TuneSettings:
    """Settings with what the command line gave instead; takes it out of `given`."""
    from dataclasses import fields, replace

    from taidpt.prompts.prompts_file import PromptSettings
    from taidpt.tuning.settings import TuneSettings

    def taken(kind: type[Any]) -> dict[str, Any]:
        names = [field.name for field in fields(kind) if field.name in given]
        found = {name: given.pop(name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    prompt = replace(settings.prompt, **taken(PromptSettings))
    return replace(settings, prompt=prompt, **taken(TuneSettings))


@click.command()
@click.option("--model", required=True, help="open_clip's model name, or toyworld.")
@click.option(
    "--pretrained", required=True, help="Weights: an open_clip tag, a file, random, or embedded."
)
@click.option("--tags", required=True, type=FILE, help="tags.yaml.")
@click.option(
    "--texts",
    multiple=True,
    type=FILE,
    help="Captions: text, JSONL or COCO JSON, .gz too. May be repeated.",
)
@click.option("--from-names", is_flag=True, help="Make texts from the tags' names.")
@click.option("-o", "--output", required=True, type=FILE, help="Prompts file.")
@_setting("--method", click.Choice(["taidpt", "tai"]), "Both prompts, or the global one. [taidpt]")
@_setting("--epochs", click.IntRange(1), "Passes over the texts. [20]")
@_setting("--batch", click.IntRange(1), "Texts a step. [512]")
@_setting("--lr", float, "Learning rate after the first epoch. [1e-4]")
@_setting("--held-out", float, "Share of the texts kept for thresholds. [0.1]")
@_setting("--text-temperature", float, "Sharpness over a caption's tokens. [50]")
@_setting("--image-temperature", float, "Sharpness over a picture's patches. [40]")
@_setting("--seed", click.IntRange(0), "Seed of everything random. [0]")
@shape_options
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside the output.")
@click.option("--restart", is_flag=True, help="Begin anew although there is a checkpoint.")
@click.option("--cache", type=FILE, help="Folder for caption features.")
@click.option(
    "--cache-precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True
)
@_DEVICE
@click.option("--threads", type=click.IntRange(1), help="CPU threads. [torch's choice]")
def tune(output: Path, threads: int | None, **given: Any) -> None:
    """Tune prompts for your tags on texts alone.

    Prints the loss and the time left on standard error. A run that is stopped or killed goes on
    with --resume, to the very prompts that it would have given (on the CPU, with equal --threads).
    """
    import torch

    from taidpt.progress import RichProgress
    from taidpt.tuning.execution import is_main_process
    from taidpt.tuning.settings import TuneSettings
    from taidpt.tuning.text_job import TuneJob, run_job

    if threads:
        torch.set_num_threads(threads)
    settings = take_settings(TuneSettings(), given)
    with RichProgress() as progress:
        prompts = run_job(TuneJob(output=output, settings=settings, **given), progress)
    if not is_main_process():
        return
    losses = prompts.provenance["losses"]
    click.echo(
        f"{output}: {len(prompts.tags)} tags, mean loss {losses[0]:.4g} in the first epoch, "
        f"{losses[-1]:.4g} in the last",
        err=True,
    )
    click.echo(f"next: taidpt-export {output} -o {output.with_suffix('.taidpt')}", err=True)


def write_text(path: Path | None, text: str) -> None:
    """Write a text to a file, to standard output for "-", nowhere for None."""
    if path is None:
        return
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    from taidpt.runtime.storage.outputs import write_output

    write_output(path, text.encode())

"""Options that several commands of this room share, and what their values become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from taidpt.features.picture_store import StoreSettings
    from taidpt.tuning.settings import TuneSettings

__all__ = [
    "CACHE",
    "DEVICE",
    "FILE",
    "MARKDOWN_HELP",
    "MODEL_HELP",
    "OFFICIAL_NAMES",
    "PRETRAINED",
    "RESUME",
    "ROOT",
    "TEXTS_HELP",
    "pick_picture",
    "pick_settings",
    "picture_options",
    "setting",
    "shape_options",
    "stacked",
    "write_text",
]

FILE = click.Path(path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])


def setting(flag: str, kind: Any, text: str, default: str) -> Callable[[Command], Command]:
    """An option of tuning that, left out, keeps the method's default, which the help names."""
    return click.option(flag, type=kind, default=None, help=f"{text} [default: {default}]")


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that adds several options, shown in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


TEXTS_HELP = "Captions: text, CSV, TSV, JSONL or COCO JSON, also .gz. May be repeated."

MARKDOWN_HELP = "Markdown table to write; - writes it to standard output instead of the lines."
MODEL_HELP = "open_clip's model name, a folder in open_clip's form, or toyworld."
PRETRAINED = click.option(
    "--pretrained",
    help="Weights: an open_clip tag, a file, or random[:SEED]. [default: those of the model's "
    "folder, or toyworld's]",
)
OFFICIAL_NAMES = click.option(
    "--official-names",
    is_flag=True,
    help="Spell VOC's classes as published runs do: diningtable, tvmonitor, motor bike. "
    "[default: dining table, tv monitor, motorbike]",
)
ROOT = click.option(
    "--root", type=FILE, help="Folder of the data sets. [default: none, toyworld needs none]"
)

CACHE = click.option(
    "--cache", type=FILE, help="Folder where features are kept. [default: ~/.cache/taidpt]"
)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto takes a GPU where torch finds one.",
)
RESUME = stacked(
    click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output."),
    click.option("--restart", is_flag=True, help="Discard that checkpoint and start again."),
)

# The shape of the prompts and the loss, for every command that tunes.
shape_options = stacked(
    setting(
        "--loss",
        click.Choice(["ranking", "asymmetric", "bce", "focal"]),
        "Loss over the tags of a text or picture.",
        "ranking; DualCoOp: asymmetric",
    ),
    setting("--context-tokens", click.IntRange(1), "Context vectors per prompt.", "16"),
    setting(
        "--name-position",
        click.Choice(["end", "middle", "front"]),
        "Where the tag's name stands among the context vectors.",
        "end",
    ),
    setting(
        "--class-specific/--shared",
        bool,
        "One context for each tag, or one for all tags.",
        "shared; DualCoOp: class-specific",
    ),
    setting(
        "--precision",
        click.Choice(["fp32", "bf16", "fp16"]),
        "Arithmetic of tuning: fp32, or mixed with bf16 or fp16.",
        "fp32",
    ),
)

# How pictures are shown to a model, for every command that encodes pictures.
picture_options = stacked(
    click.option(
        "--size",
        type=click.IntRange(1),
        help="Side of the encoded pictures, in pixels. [default: the model's own]",
    ),
    click.option(
        "--resize",
        type=click.Choice(["crop", "whole"]),
        default="crop",
        show_default=True,
        help="crop: resize the short side and take the centre; whole: resize both sides.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Processes that read pictures; 0 reads in the main process.",
    ),
    DEVICE,
)


def pick_picture(arguments: dict[str, Any]) -> StoreSettings:
    """The settings behind `picture_options`, removed from the arguments (the device stays)."""
    from taidpt.encoders.picture_input import PictureInput
    from taidpt.features.picture_store import StoreSettings

    picture = PictureInput(arguments.pop("size"), arguments.pop("resize"))
    return StoreSettings(workers=arguments.pop("workers"), picture=picture)


def pick_settings(settings: TuneSettings, arguments: dict[str, Any]) -> TuneSettings:
    """The settings with the command line's values in place, which leave the arguments."""
    from dataclasses import fields, replace

    from taidpt.prompts.prompts_file import PromptSettings
    from taidpt.tuning.settings import TuneSettings

    def pick(kind: type[Any]) -> dict[str, Any]:
        values = {
            field.name: arguments.pop(field.name)
            for field in fields(kind)
            if field.name in arguments
        }
        return {name: value for name, value in values.items() if value is not None}

    prompt = replace(settings.prompt, **pick(PromptSettings))
    return replace(settings, prompt=prompt, **pick(TuneSettings))


def write_text(path: Path | None, text: str) -> None:
    """Write a text to a file, to standard output for "-", or nowhere for None."""
    if path is None:
        return
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    from taidpt.runtime.storage.outputs import write_output

    write_output(path, text.encode())

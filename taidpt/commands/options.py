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
    "JSON",
    "MARKDOWN",
    "MODEL_HELP",
    "OFFICIAL_NAMES",
    "PRETRAINED",
    "RESUME",
    "ROOT",
    "SEED",
    "TEXTS_HELP",
    "pick_picture",
    "pick_settings",
    "picture_options",
    "shape_options",
    "stacked",
    "write_text",
]

FILE = click.Path(path_type=Path)
Command = TypeVar("Command", bound=Callable[..., Any])


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that adds several options, shown in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


TEXTS_HELP = (
    "File of captions. Text, CSV, TSV, JSONL or COCO JSON, also .gz; may be given several times."
)
MODEL_HELP = "Model. open_clip's name, a folder in open_clip's form, or toyworld."
SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, help="Seed of every random number generator."
)
MARKDOWN = click.option(
    "--markdown",
    "markdown_path",
    type=FILE,
    metavar="FILE",
    help="Markdown table to write; - is standard output.",
)
JSON = click.option(
    "--json",
    "json_path",
    type=FILE,
    metavar="FILE",
    help="JSON file to write; - is standard output.",
)
PRETRAINED = click.option(
    "--pretrained",
    metavar="WEIGHTS",
    show_default="those of the model's folder, or toyworld's",
    help="Weights of the model. An open_clip tag, a file, or random[:SEED].",
)
OFFICIAL_NAMES = click.option(
    "--official-names",
    is_flag=True,
    help="Spell VOC's classes as published runs do: diningtable, tvmonitor, motor bike.",
)
ROOT = click.option(
    "--root", type=FILE, metavar="FOLDER", help="Folder of the data sets. Toyworld needs none."
)
CACHE = click.option(
    "--cache",
    type=FILE,
    metavar="FOLDER",
    show_default="~/.cache/taidpt",
    help="Folder where features are kept.",
)
DEVICE = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where to compute. auto takes a GPU where torch finds one.",
)
RESUME = stacked(
    click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output."),
    click.option("--restart", is_flag=True, help="Discard that checkpoint and start again."),
)

LOCAL_BRANCH = click.option(
    "--local-branch",
    type=click.Choice(["value", "self"]),
    default="value",
    help="What a patch keeps of the last attention: its own value, or self (self-self attention).",
)

# The shape of the prompts and the loss, for every command that tunes.
shape_options = stacked(
    click.option(
        "--loss",
        type=click.Choice(["ranking", "asymmetric", "bce", "focal"]),
        show_default="ranking; DualCoOp: asymmetric",
        help="Loss over the tags of a text or picture.",
    ),
    click.option(
        "--context-tokens", type=click.IntRange(1), default=16, help="Context vectors per prompt."
    ),
    click.option(
        "--name-position",
        type=click.Choice(["end", "middle", "front"]),
        default="end",
        help="Where the tag's name stands among the context vectors.",
    ),
    click.option(
        "--class-specific/--shared",
        default=None,
        show_default="shared; DualCoOp: class-specific",
        help="One context for each tag, or one for all tags.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16", "fp16"]),
        default="fp32",
        help="Arithmetic of tuning: fp32, or mixed with bf16 or fp16.",
    ),
)

# How pictures are shown to a model, for every command that encodes pictures.
picture_options = stacked(
    click.option(
        "--size",
        type=click.IntRange(1),
        show_default="the model's own",
        help="Side of the encoded pictures, in pixels.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["crop", "whole"]),
        default="crop",
        help="crop: resize the short side and take the centre; whole: resize both sides.",
    ),
    LOCAL_BRANCH,
    click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        help="Processes that read or tag pictures. 0 reads in the main process.",
    ),
    DEVICE,
)


def pick_picture(arguments: dict[str, Any]) -> StoreSettings:
    """The settings behind `picture_options`, removed from the arguments (the device stays)."""
    from taidpt.encoders.picture_input import PictureInput
    from taidpt.features.picture_store import StoreSettings

    picture = PictureInput(*(arguments.pop(name) for name in ("size", "fit", "local_branch")))
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

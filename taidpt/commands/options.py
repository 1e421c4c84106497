"""Options that several commands of this room share, and what their values become."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from taidpt.runtime.options import PATH, path_option, stacked

if TYPE_CHECKING:
    from taidpt.features.picture_store import StoreSettings
    from taidpt.tuning.settings import TuneSettings

__all__ = [
    "CACHE",
    "DEVICE",
    "JSON",
    "MARKDOWN",
    "OFFICIAL_NAMES",
    "PRETRAINED",
    "RESUME",
    "ROOT",
    "SEED",
    "TEXTS",
    "pick_picture",
    "pick_settings",
    "picture_options",
    "shape_options",
    "write_text",
]

TEXTS = path_option(
    "--texts",
    "Text, CSV, TSV, JSONL or COCO JSON, also .gz; may be given several times.",
    multiple=True,
)
SEED = path_option("--seed", type=click.IntRange(0))
MARKDOWN = click.option(
    "--markdown",
    "markdown_path",
    type=PATH,
    metavar="FILE",
    help="Markdown table to write; - is standard output.",
)
JSON = path_option("--json", to="json_path")
PRETRAINED = path_option(
    "--pretrained",
    "An open_clip tag, a file, or random[:SEED].",
    show_default="those of the model's folder, or toyworld's",
)
OFFICIAL_NAMES = click.option(
    "--official-names",
    is_flag=True,
    help="Spell VOC's classes as published runs do: diningtable, tvmonitor, motor bike.",
)
ROOT = path_option("--root", "Toyworld needs none.")
CACHE = path_option("--cache", show_default="~/.cache/taidpt")
DEVICE = path_option(
    "--device",
    "auto takes a GPU where torch finds one.",
    type=click.Choice(["auto", "cpu", "cuda"]),
)
RESUME = stacked(
    click.option("--resume", is_flag=True, help="Continue from the checkpoint beside the output."),
    click.option("--restart", is_flag=True, help="Discard that checkpoint and start again."),
)

LOCAL_BRANCH = path_option("--local-branch", default="value")

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
    path_option("--workers", "0 reads in the main process.", type=click.IntRange(0), default=0),
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

"""Options that several commands have: one name, one kind of value, one meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from taidpt.runtime.backends import DEVICES

__all__ = [
    "AT_LEAST_ONE",
    "FILE",
    "PATH",
    "POSITIVE",
    "Command",
    "option",
    "path_option",
    "stacked",
]

FILE = click.Path()
PATH = click.Path(path_type=Path)
AT_LEAST_ONE = click.IntRange(min=1)
POSITIVE = click.FloatRange(min=0, min_open=True)
Command = TypeVar("Command", bound=Callable[..., Any])

# Long name → the settings of `click.option` that its commands share. Paths are texts here.
_SHARED: Mapping[str, Mapping[str, Any]] = {
    "--bank": {"type": FILE, "metavar": "FILE", "help": "Class bank whose tags are used."},
    "--batch": {"type": AT_LEAST_ONE, "help": "Texts, pictures or frames computed at once."},
    "--batches": {"metavar": "N,N,…", "help": "Batch sizes, with commas between them."},
    "--cache": {"type": FILE, "metavar": "FOLDER", "help": "Folder where features are kept."},
    "--dataset": {"help": "Data set. voc2007, coco2014, nuswide, toyworld and others."},
    "--device": {"type": click.Choice(DEVICES), "default": "auto", "help": "Where to compute."},
    "--dry-run": {"is_flag": True, "help": "Show what would be done; write nothing."},
    "--epochs": {"type": AT_LEAST_ONE, "help": "Passes over the texts or pictures."},
    "--every": {"type": AT_LEAST_ONE, "default": 1, "help": "Use every N-th frame."},
    "--frame-size": {
        "metavar": "WxH",
        "help": "Frame size of the camera, in pixels; puts resize and crop into the graph.",
    },
    "--frames": {
        "type": FILE,
        "metavar": "SOURCE",
        "help": "Unlabelled pictures or video of your scene.",
    },
    "--images": {"type": FILE, "metavar": "FOLDER", "help": "Your own pictures for checks."},
    "--json": {
        "type": FILE,
        "metavar": "FILE",
        "help": "JSON file to write; - is standard output.",
    },
    "--local-branch": {
        "type": click.Choice(["value", "self"]),
        "help": "What a patch keeps of the last attention: its own value, or self (self-self "
        "attention).",
    },
    "--lr": {"type": float, "help": "Learning rate after the first epoch."},
    "--max-fps": {"type": POSITIVE, "help": "Tag at most so many frames per second."},
    "--max-frames": {"type": AT_LEAST_ONE, "help": "Frames at most."},
    "--merge-weight": {
        "type": float,
        "help": "Share of the local score in the merged score, 0 to 1.",
    },
    "--method": {"help": "How prompts are tuned."},
    "--model": {"help": "Model. open_clip's name, a folder in open_clip's form, or toyworld."},
    "--mqtt": {
        "metavar": "URL",
        "help": "Publish events: mqtt://[user:pw@]host[:port][/topic].",
    },
    "--output": {"names": ("-o", "--output"), "type": FILE, "help": "What to write."},
    "--pretrained": {"metavar": "WEIGHTS", "help": "Weights of the model."},
    "--prompts": {"type": FILE, "metavar": "FILE", "help": "Prompts file."},
    "--quiet": {"names": ("-q", "--quiet"), "is_flag": True, "help": "Show no progress."},
    "--report": {"type": FILE, "metavar": "FILE", "help": "HTML page to write."},
    "--root": {"type": FILE, "metavar": "FOLDER", "help": "Folder of the data sets."},
    "--score-transform": {"help": "Transform of a picture's scores over its tags."},
    "--scores": {"type": FILE, "metavar": "FILE", "help": "Score file."},
    "--seconds": {
        "type": POSITIVE,
        "default": 2.0,
        "help": "Time for each measurement, in seconds.",
    },
    "--seed": {"default": 0, "help": "Seed of every random number generator."},
    "--split": {"help": "Split of the data set."},
    "--tags": {
        "metavar": "TAGS",
        "help": 'Tag list: "dog, hard hat", a tags.yaml, or a .txt with a tag a line.',
    },
    "--texts": {"type": FILE, "metavar": "FILE", "help": "File of captions."},
    "--threads": {
        "type": AT_LEAST_ONE,
        "show_default": "chosen by the backend",
        "help": "CPU threads.",
    },
    "--threshold": {"type": float, "help": "One threshold for all tags."},
    "--top": {"type": AT_LEAST_ONE, "help": "N best tags of each picture."},
    "--trust-engine": {"is_flag": True, "help": "Run engines that this machine did not build."},
    "--truth": {
        "type": FILE,
        "metavar": "FILE",
        "help": 'All tags of the pictures of --images, {"a.jpg": ["dog"]}.',
    },
    "--verbose": {
        "names": ("-v", "--verbose"),
        "is_flag": True,
        "help": "Say why better devices are not used.",
    },
    "--webhook": {"metavar": "URL", "help": "POST each event as JSON."},
    "--workers": {"help": "Processes that read or tag pictures."},
}


def option(
    name: str, more: str = "", to: str | None = None, **own: Any
) -> Callable[[Command], Command]:
    """A shared option of one command.

    Args:
        name: its long name.
        more: what its help says of this command alone, after the shared meaning.
        to: the parameter that it fills; None takes the option's name.
        own: further settings of `click.option`, or other values than the shared ones.
    """
    settings = {**_SHARED[name], **own}
    text = f"{settings.pop('help')} {more}".rstrip()
    names = settings.pop("names", (name,))
    return click.option(*names, *filter(None, (to,)), help=text, **settings)


def path_option(name: str, more: str = "", **own: Any) -> Callable[[Command], Command]:
    """The same as `option`, with a `Path` as the value of a path."""
    kind = PATH if _SHARED[name].get("type") is FILE else _SHARED[name].get("type")
    return option(name, more, **{"type": kind, **own})


def stacked(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that adds several options, shown in this order."""

    def add(command: Command) -> Command:
        for each in reversed(options):
            command = each(command)
        return command

    return add

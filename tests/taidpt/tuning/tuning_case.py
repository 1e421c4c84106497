"""A small tuning run, shared by the tests and by the process that one of them kills."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.texts.tags import Tag
from taidpt.tuning.settings import RunOptions, TuneSettings
from taidpt.tuning.text_job import save_prompts
from taidpt.tuning.tuner import tune
from tests.taidpt.tiny import make_clip

__all__ = ["SETTINGS", "TAGS", "TEXTS", "SlowProgress", "run_case"]

TAGS = (Tag("dog", ()), Tag("traffic light", ()), Tag("cat", ()), Tag("bus", ()))
TEXTS = [
    (f"{number} of them: {' and '.join(TAGS[tag].name for tag in labels)}.", labels)
    for number in range(12)
    for labels in ((0,), (1, 2), (3,), (0, 3))
]
SETTINGS = TuneSettings(epochs=4, batch=16, lr=0.02, prompt=PromptSettings(context_tokens=4))


class SlowProgress(SilentProgress):
    """Takes its time, so that a kill lands inside the run."""

    def advance(self, count: int = 1, detail: str = "") -> None:
        time.sleep(0.02)


def run_case(checkpoint: Path, resume: bool = False, slow: bool = False) -> TunedPrompts:
    """The run on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = RunOptions(checkpoint=checkpoint, resume=resume)
        progress = SlowProgress() if slow else None
        return tune(make_clip(), TAGS, TEXTS, SETTINGS, options, progress)
    finally:
        torch.set_num_threads(threads)


def main(checkpoint: Path, output: Path | None = None) -> None:
    """Slowly, to be killed; or, with an output, as one of several processes that writes it."""
    prompts = run_case(checkpoint, slow=output is None)
    if output is not None:
        save_prompts(prompts, output)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))

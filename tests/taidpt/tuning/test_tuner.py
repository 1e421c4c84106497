"""Tuning: equal to the plain way, exact after a kill, and clear about what it cannot do."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taidpt.clip.model import ClipModel
from taidpt.features.caption_features import texts_sha256
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.tuning.checkpoints import Checkpoint
from taidpt.tuning.settings import RunOptions, TuneSettings, learning_rate
from taidpt.tuning.tuner import TextRun, tune
from tests.support import REPOSITORY
from tests.taidpt import plain
from tests.taidpt.tiny import make_clip
from tests.taidpt.tuning.tuning_case import SETTINGS, TAGS, TEXTS, run_case


def assert_same(first: TunedPrompts, second: TunedPrompts) -> None:
    for head, context in first.contexts.items():
        assert torch.equal(context, second.contexts[head])
    assert first.thresholds == second.thresholds
    assert first.provenance["losses"] == second.provenance["losses"]


@pytest.mark.parametrize(
    ("shape", "lr"),
    [
        (PromptSettings(4), 0.05),
        (PromptSettings(4, class_specific=True, name_position="middle"), 0.2),
    ],
)
def test_run_equals_the_reference(resnet_clip: ClipModel, shape: PromptSettings, lr: float) -> None:
    settings = replace(SETTINGS, batch=32, lr=lr, held_out=0.0, prompt=shape)
    seen: list[float] = []

    class Watch(SilentProgress):
        def advance(self, count: int = 1, detail: str = "") -> None:
            if "loss" in detail:
                seen.append(run.loop.epoch_loss)

    run = TextRun(resnet_clip, TAGS, TEXTS, settings, RunOptions(), Watch())
    loop = run.loop
    start = [context.detach().clone() for context in loop.contexts.values()]
    batches = []
    for epoch in range(settings.epochs):
        order = loop.order(epoch)
        cut = [order[k * settings.batch : (k + 1) * settings.batch] for k in range(loop.steps)]
        batches.append([[(run.data[i][0], _one_hot(run.data[i][1])) for i in rows] for rows in cut])
    loop.train()
    names = [tag.name for tag in TAGS]
    losses, contexts = plain.plain_tuning(
        resnet_clip, names, batches, start, settings.lr, shape.name_position
    )
    assert len(losses) == loop.steps * settings.epochs > 12
    sums = torch.tensor(seen).view(settings.epochs, loop.steps)  # running sums within each epoch
    ours = torch.cat([sums[:, :1], sums.diff(dim=1)], dim=1).flatten()
    torch.testing.assert_close(ours, torch.tensor(losses), rtol=1e-4, atol=0.0)
    for first, ours_last, plain_last in zip(start, loop.contexts.values(), contexts, strict=True):
        moved = (plain_last - first).norm()
        assert moved > 0.1 * first.norm()
        assert (ours_last.detach() - plain_last).norm() < 1e-3 * moved


def _one_hot(labels: Any) -> torch.Tensor:
    found = torch.zeros(len(TAGS))
    found[list(labels)] = 1.0
    return found


@pytest.mark.parametrize("epochs", [20, 7])
def test_schedule_equals_the_paper(epochs: int) -> None:
    settings = TuneSettings(epochs=epochs, lr=3e-3)
    for epoch in range(epochs):
        expected = plain.learning_rate(epoch, 3e-3, epochs)
        assert math.isclose(learning_rate(epoch, settings), expected, rel_tol=1e-12)
    assert learning_rate(0, settings) == 1e-5
    assert learning_rate(1, settings) == 3e-3


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 1e-5),
        (1, 1e-4),
        (6, 8.5355339e-5),  # a quarter of the way: 1 + cos 45° is 1.70710678
        (11, 5e-5),
        (16, 1.4644661e-5),
        (19, 2.4471742e-6),  # 1 + cos 162° is 0.04894348
    ],
)
def test_schedule_by_hand(epoch: int, expected: float) -> None:
    assert math.isclose(learning_rate(epoch, TuneSettings()), expected, rel_tol=1e-7)


def test_killed_run_resumes_to_identical_prompts(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    command = [sys.executable, "-m", "tests.taidpt.tuning.tuning_case", str(checkpoint)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be killed"
    process.kill()
    process.wait()
    assert 0 < Checkpoint.load(checkpoint).epoch < SETTINGS.epochs
    whole = run_case(tmp_path / "whole.checkpoint")
    assert_same(run_case(checkpoint, resume=True), whole)
    moved = (whole.contexts["global"] - run_start(whole)).norm()
    assert moved > 0.01


def run_start(prompts: TunedPrompts) -> torch.Tensor:
    generator = torch.Generator().manual_seed(SETTINGS.seed)
    return 0.02 * torch.randn(prompts.contexts["global"].shape, generator=generator)


class InterruptAt(SilentProgress):
    """Ctrl-C in the middle of a run, between a step's update and its bookkeeping."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.notes: list[str] = []

    def advance(self, count: int = 1, detail: str = "") -> None:
        self.left -= "loss" in detail
        if not self.left:
            raise KeyboardInterrupt

    def note(self, line: str) -> None:
        self.notes.append(line)


@pytest.mark.usefixtures("fewer_templates")
@pytest.mark.parametrize("step", [1, 12])  # in the first epoch, and amid a later one
def test_interrupt_saves_a_checkpoint_and_explains_resuming(
    resnet_clip: ClipModel, tmp_path: Path, step: int
) -> None:
    checkpoint, progress = tmp_path / "run.checkpoint", InterruptAt(step)
    options = RunOptions(checkpoint=checkpoint)
    with pytest.raises(KeyboardInterrupt):
        tune(resnet_clip, TAGS, TEXTS, SETTINGS, options, progress)
    assert "the same command with --resume continues" in progress.notes[-1]
    resumed = tune(resnet_clip, TAGS, TEXTS, SETTINGS, replace(options, resume=True))
    assert_same(resumed, tune(resnet_clip, TAGS, TEXTS, SETTINGS))


def test_checkpoint_of_another_run_is_refused(resnet_clip: ClipModel, tmp_path: Path) -> None:
    options = RunOptions(checkpoint=tmp_path / "run.checkpoint", resume=True)
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        tune(resnet_clip, TAGS, TEXTS, SETTINGS, options)
    tune(resnet_clip, TAGS, TEXTS, replace(SETTINGS, epochs=1), replace(options, resume=False))
    with pytest.raises(InputError, match=r"another run: settings differ"):
        tune(resnet_clip, TAGS, TEXTS, SETTINGS, options)
    with pytest.raises(InputError, match=r"another run: texts differ"):
        tune(resnet_clip, TAGS, TEXTS[1:], replace(SETTINGS, epochs=1), options)
    (tmp_path / "run.checkpoint").write_bytes(b"half")
    with pytest.raises(InputError, match="cannot resume from this checkpoint"):
        tune(resnet_clip, TAGS, TEXTS, SETTINGS, options)


@pytest.mark.usefixtures("fewer_templates")
def test_prompts_record_their_provenance(resnet_clip: ClipModel) -> None:
    options = RunOptions(sources=("captions.txt",))
    prompts = tune(resnet_clip, TAGS, [*TEXTS, ("nothing here", ())], SETTINGS, options)
    texts = prompts.provenance["texts"]
    assert texts["sha256"] == texts_sha256([text for text, _ in TEXTS])
    assert texts["sources"] == ["captions.txt"]
    assert texts["named"] == len(TEXTS)
    assert 0.1 * len(TEXTS) < texts["held_out"] < 0.25 * len(TEXTS)
    assert len(prompts.provenance["losses"]) == SETTINGS.epochs
    assert prompts.model == resnet_clip.identity()
    assert {threshold.source for threshold in prompts.thresholds} == {"from texts"}
    assert [row["state"] for row in prompts.probabilities if row] == ["from texts"] * len(
        prompts.tags
    )
    assert all(-4 < item.off <= item.on < 4 for item in prompts.thresholds)
    prompts.check_model(resnet_clip)


@pytest.mark.usefixtures("fewer_templates")
def test_tai_tunes_the_global_prompt_alone(resnet_clip: ClipModel) -> None:
    settings = replace(SETTINGS, method="tai")
    prompts = tune(resnet_clip, TAGS, TEXTS, settings)
    assert set(prompts.contexts) == {"global"}
    assert prompts.scoring.merge_weight == 0.0
    both = tune(resnet_clip, TAGS, TEXTS, SETTINGS)
    # the heads share no parameter, so the global one does not see the other
    torch.testing.assert_close(prompts.contexts["global"], both.contexts["global"])


def test_tuning_lowers_the_loss(resnet_clip: ClipModel) -> None:
    settings = replace(SETTINGS, epochs=8)
    losses = tune(resnet_clip, TAGS, TEXTS, settings).provenance["losses"]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_specific": True},
        {"name_position": "front"},
        {"name_position": "middle", "class_specific": True},
    ],
)
def test_other_prompt_shapes_can_be_tuned(resnet_clip: ClipModel, changes: dict[str, Any]) -> None:
    shape = PromptSettings(context_tokens=4, **changes)
    prompts = tune(resnet_clip, TAGS, TEXTS, replace(SETTINGS, epochs=6, prompt=shape))
    losses = prompts.provenance["losses"]
    assert losses[-1] < losses[0]
    assert prompts.settings == shape


@pytest.mark.usefixtures("fewer_templates")
def test_bidirectional_tower_can_be_tuned() -> None:
    clip = make_clip(no_causal_mask=True, custom_text=True)
    losses = tune(clip, TAGS, TEXTS, SETTINGS).provenance["losses"]
    assert losses[-1] < losses[0]


def test_few_texts_make_one_batch_with_a_note(resnet_clip: ClipModel) -> None:
    progress = InterruptAt(10**9)
    tune(resnet_clip, TAGS[:1], [("a dog", (0,))], TuneSettings(epochs=1), progress=progress)
    assert any("fewer than a batch of 512" in line for line in progress.notes)


def test_impossible_tuning_is_refused(resnet_clip: ClipModel) -> None:
    with pytest.raises(InputError, match="none of the texts names a tag"):
        tune(resnet_clip, TAGS, [("nothing", ()), ("here", ())], SETTINGS)
    with pytest.raises(
        InputError, match=r"diverged to infinity in epoch \d: lower the learning rate"
    ):
        tune(resnet_clip, TAGS, TEXTS, replace(SETTINGS, lr=1e30))
    with pytest.raises(InputError, match="expected one of taidpt, tai"):
        TuneSettings(method="lora")
    with pytest.raises(InputError, match="epochs should be above 0"):
        TuneSettings(epochs=0)
    with pytest.raises(InputError, match="held-out share"):
        TuneSettings(held_out=1.0)

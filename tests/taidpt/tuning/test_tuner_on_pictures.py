"""CoOp and DualCoOp on picture features: the same loop, other material."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from taidpt.clip.model import ClipModel
from taidpt.export.classes.bake import bake
from taidpt.features.caption_features import FeatureBatch
from taidpt.features.pictures import PictureFeatures
from taidpt.features.prompt_encoder import class_embeddings, encode_texts
from taidpt.kernels.local_similarity import local_similarity
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import PromptSettings, TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.scores import dual_scores
from taidpt.tuning.loop import TuningLoop
from taidpt.tuning.objectives import DualObjective
from taidpt.tuning.picture_features import mask_labels
from taidpt.tuning.settings import RunOptions, TuneSettings, settings_of
from taidpt.tuning.tuner import tune, tune_on_pictures
from tests.taidpt import plain
from tests.taidpt.tuning.test_tuner import InterruptAt
from tests.taidpt.tuning.tuning_case import TAGS, TEXTS


@pytest.fixture(scope="module")
def pictures(resnet_clip: ClipModel) -> tuple[PictureFeatures, torch.Tensor]:
    """Pictures of made-up features: patches lie near the plain names of what they show."""
    generator = torch.Generator().manual_seed(0)
    rows = encode_texts(resnet_clip, [tag.name for tag in TAGS])
    labels = torch.where(torch.rand(48, len(TAGS), generator=generator) < 0.4, 1.0, -1.0)
    labels[:, 0] = torch.where((labels > 0).any(dim=1), labels[:, 0], 1.0)
    patches = 0.3 * torch.randn(48, 6, 32, generator=generator) / 32**0.5
    for picture, has in zip(patches, labels, strict=True):
        for place, tag in enumerate((has > 0).nonzero().flatten().tolist()):
            picture[place] += rows[tag]
    patches = F.normalize(patches, dim=-1)
    return PictureFeatures(None, F.normalize(patches.mean(1), dim=-1), patches), labels


def small(method: str) -> TuneSettings:
    settings = settings_of(method)
    shape = replace(settings.prompt, context_tokens=4)
    lr = 5e-4 if method == "dualcoop" else 0.02
    return replace(settings, epochs=10, batch=16, lr=lr, prompt=shape)


def test_presets_are_the_published_settings() -> None:
    dual = settings_of("dualcoop")
    assert (dual.epochs, dual.batch, dual.lr, dual.loss) == (50, 64, 2e-3, "asymmetric")
    assert dual.prompt == PromptSettings(16, class_specific=True)
    assert settings_of("taidpt").batch == 512
    with pytest.raises(InputError, match="taidpt, tai, coop, dualcoop"):
        settings_of("lora")


@pytest.mark.parametrize("method", ["coop", "dualcoop"])
def test_tuning_on_pictures_lowers_the_loss(
    resnet_clip: ClipModel,
    pictures: tuple[PictureFeatures, torch.Tensor],
    method: str,
    tmp_path: Path,
) -> None:
    source, labels = pictures
    settings = small(method)
    prompts = tune_on_pictures(resnet_clip, TAGS, source, labels, settings)
    losses = prompts.provenance["losses"]
    assert losses[-1] < losses[0]
    prompts.save(tmp_path / "prompts.safetensors")
    loaded = TunedPrompts.load(tmp_path / "prompts.safetensors")
    assert loaded.scoring == prompts.scoring
    assert set(loaded.contexts) == (
        {"global", "local"} if method == "coop" else {"positive", "negative"}
    )
    rows = class_embeddings(resnet_clip, loaded.names, loaded.contexts)
    assert all(row.shape == (len(TAGS), 32) for row in rows.values())


def test_dualcoop_run_equals_the_reference(
    resnet_clip: ClipModel,
    pictures: tuple[PictureFeatures, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, labels = pictures
    labels = mask_labels(labels, 0.7, seed=3)
    settings = replace(small("dualcoop"), epochs=4, lr=1e-3)
    loops: list[TuningLoop] = []
    seen: list[float] = []
    train = TuningLoop.train

    def watched(loop: TuningLoop) -> None:
        loops.append(loop)
        start.extend(value.detach().clone() for value in loop.learned.values())
        train(loop)

    class Watch(SilentProgress):
        def advance(self, count: int = 1, detail: str = "") -> None:
            seen.append(loops[0].epoch_loss)

    start: list[torch.Tensor] = []
    monkeypatch.setattr(TuningLoop, "train", watched)
    tune_on_pictures(resnet_clip, TAGS, source, labels, settings, progress=Watch())
    (loop,) = loops
    batches = []
    for epoch in range(settings.epochs):
        order = loop.order(epoch)
        cut = [order[k * settings.batch :][: settings.batch] for k in range(loop.steps)]
        patches = source.patch_features.double()
        batches.append([(patches[rows], labels[rows].double()) for rows in cut])
    names = [tag.name for tag in TAGS]
    # In float64: rounding grows from step to step, and a reference in float32 is on some processors
    # further from this one (1.2e-4 at the last step) than the run that it would judge (4e-5).
    exact = copy.deepcopy(resnet_clip)
    exact.model.double()
    first_values = [value.double() for value in start]
    losses, last = plain.plain_dual_tuning(exact, names, batches, first_values, settings.lr)
    sums = torch.tensor(seen).view(settings.epochs, loop.steps)  # running sums within each epoch
    ours = torch.cat([sums[:, :1], sums.diff(dim=1)], dim=1).flatten()
    torch.testing.assert_close(ours, torch.tensor(losses), rtol=1e-4, atol=0.0)
    found = zip(first_values, loop.learned.values(), last, strict=True)
    for index, (first, ours_last, plain_last) in enumerate(found):
        moved = (plain_last - first).norm()
        assert index > 1 or moved > 0.1 * first.norm()  # of the contexts
        assert (ours_last.detach() - plain_last).norm() < 1e-3 * moved


def test_dualcoop_scores_by_hand() -> None:
    objective = DualObjective()
    numbers = objective.first_numbers()
    rows = {"positive": torch.tensor([[1.0, 0.0]]), "negative": torch.tensor([[0.0, 1.0]])}
    patches = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    (scores,) = objective.scores(FeatureBatch(patches[:, 0], patches, None), rows, numbers).values()
    # cos⁺ is 1 and 0.6, cos⁺ − cos⁻ is 1 and −0.2; e^3 = 20.0855, e^3.91 = 49.8990
    first = 1 / (1 + math.exp(-20.085537 * 0.4))
    expected = 49.898952 * (first * 1 + (1 - first) * -0.2)
    torch.testing.assert_close(scores, torch.tensor([[expected]]))


def test_dualcoop_learns_temperatures_from_the_published_start(
    resnet_clip: ClipModel, pictures: tuple[PictureFeatures, torch.Tensor]
) -> None:
    source, labels = pictures
    settings = replace(small("dualcoop"), epochs=1, warmup_lr=1e-12)
    still = tune_on_pictures(resnet_clip, TAGS, source, labels, settings)
    assert math.isclose(still.scoring.temperature, math.exp(3.0), rel_tol=1e-5)
    assert math.isclose(still.scoring.scale, math.exp(3.91), rel_tol=1e-5)
    assert still.scoring.merge_weight == 1.0
    tuned = tune_on_pictures(resnet_clip, TAGS, source, labels, small("dualcoop"))
    assert tuned.scoring.scale != still.scoring.scale
    assert tuned.scoring.temperature != still.scoring.temperature
    assert tuned.contexts["positive"].shape == (len(TAGS), 4, 64)


def test_hidden_labels_do_not_affect_the_prompts(
    resnet_clip: ClipModel, pictures: tuple[PictureFeatures, torch.Tensor]
) -> None:
    source, labels = pictures
    settings = small("dualcoop")
    hidden = labels.clone()
    hidden[:, 2] = 0.0
    first = tune_on_pictures(resnet_clip, TAGS, source, hidden, settings)
    generator = torch.Generator().manual_seed(0)
    start = 0.02 * torch.randn(first.contexts["positive"].shape, generator=generator)
    change = (first.contexts["positive"] - start).flatten(1).norm(dim=1)
    assert change[2] < 0.01 * change[[0, 1, 3]].min()  # weight decay alone


def test_interrupted_dualcoop_run_resumes_exactly(
    resnet_clip: ClipModel, pictures: tuple[PictureFeatures, torch.Tensor], tmp_path: Path
) -> None:
    source, labels = pictures
    settings, options = small("dualcoop"), RunOptions(checkpoint=tmp_path / "run.checkpoint")
    with pytest.raises(KeyboardInterrupt):
        tune_on_pictures(resnet_clip, TAGS, source, labels, settings, options, InterruptAt(8))
    options = replace(options, resume=True)
    resumed = tune_on_pictures(resnet_clip, TAGS, source, labels, settings, options)
    whole = tune_on_pictures(resnet_clip, TAGS, source, labels, settings)
    assert torch.equal(resumed.contexts["negative"], whole.contexts["negative"])
    assert resumed.scoring == whole.scoring


def test_masks_hide_labels_independently() -> None:
    labels = torch.where(torch.arange(20000).view(200, 100) % 3 == 0, 1, -1)
    masked = mask_labels(labels, 0.1, seed=1)
    known = masked != 0
    assert torch.equal(masked[known], labels[known])
    assert abs(float(known.float().mean()) - 0.1) < 0.01
    assert float(known.float().mean(0).std()) < 0.05
    assert torch.equal(mask_labels(labels, 0.1, seed=1), masked)
    assert not torch.equal(mask_labels(labels, 0.1, seed=2), masked)
    assert torch.equal(mask_labels(labels, 1.0, seed=1), labels)
    with pytest.raises(InputError, match="above 0 and at most 1"):
        mask_labels(labels, 0.0, seed=1)


def test_unfit_training_data_is_refused(
    resnet_clip: ClipModel, pictures: tuple[PictureFeatures, torch.Tensor]
) -> None:
    source, labels = pictures
    with pytest.raises(InputError, match=r"should be \[48, 4\] with at least one 1, got \[47, 4\]"):
        tune_on_pictures(resnet_clip, TAGS, source, labels[1:], settings_of("coop"))
    with pytest.raises(InputError, match="with 0"):
        tune_on_pictures(resnet_clip, TAGS, source, -labels.abs(), settings_of("coop"))
    with pytest.raises(InputError, match="is tuned on texts"):
        tune_on_pictures(resnet_clip, TAGS, source, labels, settings_of("tai"))
    with pytest.raises(InputError, match="is tuned on pictures"):
        tune(resnet_clip, TAGS, TEXTS, settings_of("dualcoop"))


def test_dualcoop_bakes_into_a_bank_with_values(
    resnet_clip: ClipModel, pictures: tuple[PictureFeatures, torch.Tensor]
) -> None:
    source, labels = pictures
    prompts = tune_on_pictures(resnet_clip, TAGS, source, labels, small("dualcoop"))
    bank = bake(prompts, resnet_clip)
    rows = class_embeddings(resnet_clip, prompts.names, prompts.contexts)
    scores = prompts.scoring.scale * dual_scores(
        source.patch_features,
        rows["positive"],
        rows["negative"],
        torch.tensor(prompts.scoring.temperature),
    )
    assert bank.value_embeddings is not None
    baked = local_similarity(
        source.patch_features,
        torch.from_numpy(bank.local_embeddings),
        prompts.scoring.temperature,
        values=torch.from_numpy(bank.value_embeddings),
    )
    expected = torch.from_numpy(bank.scale) * baked + torch.from_numpy(bank.bias)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)

"""The whole export: what stands in the bundle, and what is left when it fails or is killed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from taidpt.cli import cli
from taidpt.clip.model import load_clip
from taidpt.export.exporter import ExportOptions, ExportResult, export_bundle, write_bundle
from taidpt.export.graph.resize import FrameInput
from taidpt.export.parity.stored_answers import EXPECTATIONS_FILE, StoredAnswers
from taidpt.export.replace_head import replace_head
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime import Bundle, Tagger
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.runtime.bundle.input_spec import NV12, BakedResize
from taidpt.runtime.errors import InputError, ParityError
from taidpt.runtime.preprocess.nv12 import nv12_to_rgb
from taidpt.texts.tags import Tag
from tests.taidpt.tiny import VIT, make_clip

TAGS = (Tag("dog", ("puppy",)), Tag("traffic light"), Tag("umbrella"))


def some_prompts(clip: object, heads: tuple[str, ...] = ("global", "local")) -> TunedPrompts:
    generator = torch.Generator().manual_seed(0)
    width = clip.model.token_embedding.weight.shape[1]  # type: ignore[attr-defined]
    contexts = {head: torch.randn(16, width, generator=generator) * 0.02 for head in heads}
    thresholds = tuple(Threshold(0.5 + i, 0.4 + i, "from texts") for i in range(3))
    identity = clip.identity()  # type: ignore[attr-defined]
    return TunedPrompts(contexts, TAGS, thresholds, identity, provenance={"method": "none"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    clip = make_clip()
    out = tmp_path_factory.mktemp("bundles") / "street.taidpt"
    return write_bundle(some_prompts(clip), clip, out, ExportOptions(), SilentProgress())


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "street.safetensors"
    some_prompts(load_clip("toyworld", "embedded")).save(path)
    return path


def test_bundle_is_whole(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.path)
    assert bundle.verify_hashes() == ()
    manifest = bundle.manifest
    assert manifest.names == ("dog", "traffic light", "umbrella")
    assert manifest.tags[0].synonyms == ("puppy",)
    assert manifest.tags[1].threshold == Threshold(1.5, 1.4, "from texts")
    assert manifest.tags[1].probability is None
    assert manifest.scoring.temperature == 40
    assert manifest.scoring.transform == "none"
    assert (manifest.graph.opset, manifest.graph.ir_version) == (18, 10)
    assert manifest.model.grid == (3, 3)
    assert manifest.provenance["tuning"] == {"method": "none"}
    assert manifest.provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    np.testing.assert_array_equal(bundle.bank.scale, 4)
    np.testing.assert_array_equal(bundle.bank.bias, 0)
    lengths = np.linalg.norm(bundle.bank.local_embeddings, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_graph_passes_the_full_check_and_says_what_the_manifest_says(
    exported: ExportResult,
) -> None:
    model = onnx.load(exported.path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    graph = exported.manifest.graph
    assert model.ir_version == graph.ir_version
    assert tuple(value.name for value in model.graph.input) == graph.inputs
    assert tuple(value.name for value in model.graph.output) == graph.outputs


def test_the_tagger_runs_it(exported: ExportResult) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
    with Tagger.load(exported.path) as tagger:
        result = tagger.tag(frame)
        assert {tag.name for tag in result.tags} == {"dog", "traffic light", "umbrella"}
        assert result.heatmap("dog").shape == (3, 3)


def test_parity_and_expectations_are_in_the_bundle(exported: ExportResult) -> None:
    bundle = Bundle.load(exported.path)
    parity = json.loads(bundle.file("parity.json").read_text())
    assert parity["passed"] is True
    assert parity["outputs"]["patch_features"]["minimum"] > 0.9999
    assert max(parity["grey_levels"]) <= 1
    expected = StoredAnswers.load(bundle.file(EXPECTATIONS_FILE))
    assert len(expected.pictures) >= 4
    with Tagger.load(exported.path) as tagger:
        scores = tagger.tag_batch([picture.pixels for picture in expected.pictures]).scores
    np.testing.assert_allclose(scores, expected.outputs["scores"], atol=0.02)
    assert bundle.file(EXPECTATIONS_FILE).stat().st_size < 2e6


def test_only_a_global_prompt(tmp_path: Path) -> None:
    clip = make_clip()
    prompts = some_prompts(clip, ("global",))
    options = ExportOptions(score_transform="center", merge_weight=0.2, temperature=7.0, opset=17)
    result = write_bundle(prompts, clip, tmp_path / "a.taidpt", options, SilentProgress())
    bank = Bundle.load(result.path).bank
    np.testing.assert_array_equal(bank.local_embeddings, bank.global_embeddings)
    scoring = result.manifest.scoring
    assert (scoring.transform, scoring.merge_weight) == ("center", 0.2)
    assert result.manifest.graph.opset == 17
    # the prompts' thresholds are of scores without the transform
    assert {tag.threshold.source for tag in result.manifest.tags} == {"default"}


def test_failing_parity_leaves_the_old_bundle(tmp_path: Path) -> None:
    clip = make_clip()
    out = tmp_path / "a.taidpt"
    strict = ExportOptions(parity_bound=1.0)
    with pytest.raises(ParityError, match=r"expected at least 1\.0"):
        write_bundle(some_prompts(clip), clip, out, strict, SilentProgress())
    assert list(tmp_path.iterdir()) == []
    forced = dataclasses.replace(strict, force=True)
    result = write_bundle(some_prompts(clip), clip, out, forced, SilentProgress())
    assert not result.parity.passed
    assert json.loads((out / "parity.json").read_text())["passed"] is False
    assert Bundle.load(out).manifest.provenance["forced"] is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 16}, "opset 16 is not one of 17, 18, 19, 20"),
        ({"parity_bound": 0.5}, "parity bound 0.5: expected from 0.999 to 1"),
        ({"temperature": -1.0}, "temperature should be above 0, got -1.0"),
        ({"merge_weight": 2.0}, "merge weight should be from 0 to 1, got 2.0"),
        ({"images": Path("nowhere")}, "nowhere: no such folder of pictures"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    clip = make_clip()
    with pytest.raises(InputError, match=message):
        write_bundle(
            some_prompts(clip),
            clip,
            tmp_path / "a.taidpt",
            ExportOptions(**options),  # type: ignore[arg-type]
            SilentProgress(),
        )
    assert list(tmp_path.iterdir()) == []


def test_prompts_of_another_model(tmp_path: Path) -> None:
    clip = make_clip()
    other = dataclasses.replace(clip, weights_sha256="1" * 64)
    with pytest.raises(InputError, match="tuned for tiny with weights random:0"):
        write_bundle(
            some_prompts(clip), other, tmp_path / "a.taidpt", ExportOptions(), SilentProgress()
        )


def test_own_pictures_count(tmp_path: Path, prompts_file: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for index in range(2):
        pixels = np.random.default_rng(index).integers(0, 256, (90, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    Image.new("L", (80, 80), 90).save(folder / "grey.png")
    out = tmp_path / "a.taidpt"
    result = export_bundle(prompts_file, out, ExportOptions(images=folder))
    assert {"0.png", "1.png", "grey.png"} <= set(result.parity.pictures)
    stored = StoredAnswers.load(out / EXPECTATIONS_FILE)
    assert not any(picture.name.endswith(".png") for picture in stored.pictures)
    (folder / "broken.png").write_bytes(b"\x89PNG")
    result = export_bundle(prompts_file, out, ExportOptions(images=folder))
    assert {"0.png", "1.png", "grey.png"} <= set(result.parity.pictures)
    for path in folder.iterdir():
        path.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match="4 of 4 pictures could not be read"):
        export_bundle(prompts_file, out, ExportOptions(images=folder))


def test_resize_in_the_graph(tmp_path: Path) -> None:
    """The tagger on a camera's frames, resized by the graph, against the runtime's own resize."""
    clip = make_clip()
    prompts, plain = some_prompts(clip), tmp_path / "plain.taidpt"
    baked = tmp_path / "baked.taidpt"
    write_bundle(prompts, clip, plain, ExportOptions(), SilentProgress())
    options = ExportOptions(frame=FrameInput(180, 320))
    result = write_bundle(prompts, clip, baked, options, SilentProgress())
    assert result.parity.passed
    assert result.manifest.input.baked_resize == BakedResize((96, 96))
    assert (result.manifest.input.height, result.manifest.input.width) == (180, 320)
    frames = np.random.default_rng(0).integers(0, 256, (2, 180, 320, 3), dtype=np.uint8)
    with Tagger.load(plain) as one, Tagger.load(baked) as other:
        expected, got = one.tag_batch(frames).scores, other.tag_batch(frames).scores
        np.testing.assert_allclose(got, expected, atol=0.02)
        with pytest.raises(InputError, match="320x180"):
            other.tag(frames[0, :100])


def test_colours_in_the_graph(tmp_path: Path) -> None:
    """The tagger on a decoder's NV12 against the stated conversion and the runtime's resize."""
    clip = make_clip()
    prompts, plain, baked = some_prompts(clip), tmp_path / "a.taidpt", tmp_path / "b.taidpt"
    write_bundle(prompts, clip, plain, ExportOptions(), SilentProgress())
    options = ExportOptions(frame=FrameInput(180, 320, "nv12", "bt601", "full"))
    result = write_bundle(prompts, clip, baked, options, SilentProgress())
    assert result.parity.passed
    spec = Bundle.load(baked).manifest.input
    assert (spec.format, spec.frame_shape, spec.colours) == (NV12, (270, 320), ("bt601", "full"))
    frames = np.random.default_rng(0).integers(0, 256, (2, 270, 320), dtype=np.uint8)
    with Tagger.load(plain) as one, Tagger.load(baked) as other:
        expected = one.tag_batch([nv12_to_rgb(frame, "bt601", "full") for frame in frames])
        np.testing.assert_allclose(other.tag_batch(frames).scores, expected.scores, atol=0.02)
        with pytest.raises(InputError, match="takes NV12 frames of 320x180"):
            other.tag(frames[0, :100])


def test_command(tmp_path: Path, prompts_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "street.taidpt"
    arguments = [prompts_file, "-o", out, "--score-transform", "center", "-q"]
    cli.main(["export", *map(str, arguments)], standalone_mode=False)
    done = capfd.readouterr()
    assert done.out.startswith(f"{out}: 3 tags, toyworld")
    assert "least centred cosine over" in done.out
    assert done.err == ""
    assert Bundle.load(out).manifest.scoring.transform == "center"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.safetensors"], "missing.safetensors: no such file"),
        ([__file__], "damaged or not a prompts file"),
    ],
)
def test_command_tells_bad_input_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = CliRunner().invoke(cli, ["export", *arguments, "-o", str(tmp_path / "a.taidpt")])
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_background_tags_compete_in_every_bundle_made_of_it(tmp_path: Path) -> None:
    clip, center = make_clip(VIT), ExportOptions(score_transform="center")
    frames = [np.random.default_rng(i).integers(0, 256, (80, 90, 3), np.uint8) for i in range(3)]
    options = dataclasses.replace(center, background=True)
    for name, one in (("alone", center), ("against", options)):
        write_bundle(some_prompts(clip), clip, tmp_path / f"{name}.taidpt", one, SilentProgress())
    quiet = tmp_path / "against.taidpt", tmp_path / "open.taidpt", "input", None, SilentProgress()
    replace_head(*quiet)
    nouns = Bundle.load(tmp_path / "against.taidpt").bank.background
    assert nouns is not None
    assert len(nouns.names) > 50
    assert "dog" not in nouns.names
    scores = {}
    for path in sorted(tmp_path.glob("*.taidpt")):
        with Tagger.load(path) as tagger:
            scores[path.stem] = tagger.tag_batch(frames).scores.copy()
            if path.stem == "open":  # a bank from elsewhere has no background tags
                plain = dataclasses.replace(tagger.class_bank.select(["dog"]), background=None)
                tagger.use_bank(plain)
                scores["dog"] = tagger.tag_batch(frames).scores.copy()
    assert np.abs(scores["alone"].mean(axis=1)).max() < 1e-5
    assert np.abs(scores["against"].mean(axis=1)).min() > 1e-4
    np.testing.assert_allclose(scores["open"], scores["against"], atol=1e-5)
    assert np.abs(scores["dog"]).min() > 1e-4  # alone it would be its own mean


@pytest.mark.parametrize("transform", ["none", "log_softmax"])
def test_background_tags_need_the_transform_center(tmp_path: Path, transform: str) -> None:
    options = ExportOptions(background=True, score_transform=transform)
    clip = make_clip()
    with pytest.raises(InputError, match="--score-transform center"):
        write_bundle(some_prompts(clip), clip, tmp_path / "b.taidpt", options, SilentProgress())
    assert not (tmp_path / "b.taidpt").exists()

"""Only the best scores leave the device, and a bundle made again with another head."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from taidpt.calibration.scene import score_frames
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.export.classes.banked_classes import BankedClasses
from taidpt.export.cli.commands import export
from taidpt.export.engines.builder import build_engine
from taidpt.export.exporter import ExportOptions, _tag_entries, write_bundle
from taidpt.export.graph.head import append_head
from taidpt.export.graph.onnx_files import run_graph, save_graph
from taidpt.export.parity.graph_outputs import graph_outputs
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.export.precision.half import to_half
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import add_precision
from taidpt.export.replace_head import replace_head
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, Tagger
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.runtime.bundle.manifest import Scoring
from taidpt.runtime.errors import InputError
from taidpt.runtime.tagger.active_bank import BANK_INPUTS
from taidpt.runtime.top_k import floor_scores
from tests.export.conftest import FAMILIES, small_bank, small_graph, small_reference
from tests.export.precision.test_variant import require_rtx
from tests.export.test_exporter import some_prompts
from tests.taidpt.tiny import VIT, make_clip

PICTURES = [picture.pixels for picture in generated_pictures(64)[:6]]
QUIET = SilentProgress()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT's bundle that returns all scores, its bank a constant."""
    clip = make_clip(VIT)
    out = tmp_path_factory.mktemp("bundles") / "street.taidpt"
    return write_bundle(some_prompts(clip), clip, out, ExportOptions(), QUIET).path


@pytest.mark.parametrize("bank_as", ["constant", "input"])
@pytest.mark.parametrize("opset", [17, 18])
def test_the_best_scores_are_those_of_the_whole_graph(opset: int, bank_as: str) -> None:
    bank, scoring = small_bank(40), Scoring(40.0, 0.4, "center")
    encoder = small_graph("resnet", opset)
    spec = small_reference("resnet", bank, scoring).spec
    full = graph_outputs(append_head(encoder, bank, scoring, bank_as), spec, PICTURES, bank)
    best = append_head(encoder, bank, scoring, bank_as, top_k=5)
    found = graph_outputs(best, spec, PICTURES, bank)
    assert [value.name for value in best.graph.output] == [
        "top_scores",
        "top_indices",
        "global_features",
        "patch_features",
    ]
    assert best.graph.node[-1].op_type == "TopK"  # nothing runs after it
    order = np.argsort(-full["scores"], axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found["top_indices"], order)
    np.testing.assert_array_equal(
        found["top_scores"], np.take_along_axis(full["scores"], order, axis=1)
    )
    np.testing.assert_array_equal(found["scores"], floor_scores(full["scores"], 5))


@pytest.mark.parametrize(("count", "message"), [(8, "the bank has 7 tags"), (0, "expected 1 to 7")])
def test_more_than_there_are_is_refused(count: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        append_head(small_graph("resnet"), small_bank(7), Scoring(40.0), top_k=count)


def test_five_thousand_tags_are_scored_and_the_best_come_out() -> None:
    bank = small_bank(5000)
    graph = append_head(small_graph("vit"), bank, Scoring(40.0), "input", top_k=20)
    feeds = {name: getattr(bank, name) for name in BANK_INPUTS}
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    out = run_graph(graph, {"frames": frames, **feeds})
    assert out["top_scores"].shape == (2, 20)
    assert "scores" not in out
    assert out["top_indices"].max() > 4000


def test_the_runtime_marks_what_is_only_a_bound(whole: Path, tmp_path: Path) -> None:
    best = replace_head(whole, tmp_path / "best.taidpt", "constant", 2, QUIET)
    assert best.parity.passed
    assert verify(best.path, VerifyOptions(torch="no")).candidates[0].passed
    picture = generated_pictures(48)[0].pixels
    with Tagger.load(whole) as all_tags, Tagger.load(best.path) as tagger:
        expected, found = all_tags(picture), tagger(picture)
        assert found.exact.tolist() == [tag.name in _names(expected.top(2)) for tag in _tags(found)]
        last = found.tags[-1]
        assert last.upper_bound
        assert not last.on
        assert last.score == found.tags[1].score >= expected[last.name].score
        assert last.to_dict()["upper_bound"] is True
        assert found.tags[0].to_dict()["upper_bound"] is False
        np.testing.assert_allclose(found.heatmap(last.name), expected.heatmap(last.name), atol=1e-6)
        with pytest.raises(InputError, match="--top-k 2, and calibration needs"):
            score_frames(tagger, [], 10)


def _names(tags: object) -> list[str]:
    return [tag.name for tag in tags]  # type: ignore[attr-defined]


def _tags(result: object) -> list[object]:
    words = result.vocabulary  # type: ignore[attr-defined]
    return [result[name] for name in words.names]  # type: ignore[index]


def test_a_constant_bundle_becomes_one_that_takes_any_bank(whole: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(whole)
    calibrated = dataclasses.replace(
        bundle.manifest.tags[0], threshold=Threshold(9.0, 8.0, "calibrated")
    )
    tags = (calibrated, *bundle.manifest.tags[1:])
    copy = Bundle.load(shutil.copytree(whole, tmp_path / "copy.taidpt"))
    copy.with_manifest(dataclasses.replace(bundle.manifest, tags=tags))
    add_precision(copy.path, EngineRequest(EngineOptions("fp16")), QUIET)
    made = replace_head(copy.path, tmp_path / "any.taidpt", "input", None, QUIET)
    again = Bundle.load(made.path)
    assert again.manifest.graph.bank == "input"
    assert again.bank.thresholds[0].source == "calibrated"  # what was learned goes along
    assert "model.fp16.onnx" not in again.manifest.files  # made of another graph
    picture = generated_pictures(48)[1].pixels
    with Tagger.load(whole) as fixed, Tagger.load(made.path) as tagger:
        np.testing.assert_allclose(tagger(picture).scores, fixed(picture).scores, atol=1e-5)
        tagger.bank.remove("dog")
        np.testing.assert_allclose(tagger(picture).scores, fixed(picture).scores[1:], atol=1e-5)


def test_the_command_makes_it_again_and_refuses_what_it_cannot_change(
    whole: Path, tmp_path: Path
) -> None:
    def run(*arguments: object) -> str:
        result = CliRunner().invoke(export, [*map(str, arguments), "-q"])
        return result.output + str(result.exception or "")

    out = tmp_path / "best.taidpt"
    assert "3 tags" in run(whole, "-o", out, "--top-k", 1, "--swappable-bank")
    assert onnx.load(out / "model.onnx").graph.node[-1].op_type == "TopK"
    assert "-o is for another bundle" in run(whole, "-o", out)
    assert "with -o NAME.taidpt make another" in run(whole, "--swappable-bank")
    assert "--merge-weight is for the export of prompts" in run(
        whole, "-o", out, "--top-k", 1, "--merge-weight", 0.3
    )
    assert "another head needs every tag's score" in run(out, "-o", whole, "--swappable-bank")


@pytest.mark.tensorrt
@pytest.mark.parametrize("bank_as", ["constant", "input"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensorrt_rtx_builds_it(family: str, bank_as: str, tmp_path: Path) -> None:
    require_rtx()
    low = to_half(small_graph(family), "fp16")
    graph = tmp_path / "model.onnx"
    save_graph(append_head(low, small_bank(100), Scoring(40.0), bank_as, top_k=10), graph)
    options = EngineOptions("fp16", (1, 2, 4), 1 << 30, "tensorrt-rtx", "sm_86")
    built = build_engine(graph, options, tmp_path / "log")
    assert len(built.data) > 100_000


def test_what_a_bank_learned_is_in_the_bundle_made_of_it() -> None:
    ramp = {"scores": [0.0, 1.0], "probabilities": [0.0, 1.0]}
    learned = tuple(Threshold(2.0, 1.0, "calibrated") for _ in range(7))
    bank = dataclasses.replace(small_bank(7), thresholds=learned, probabilities=(ramp,) * 7)
    classes = BankedClasses(bank)
    entries = _tag_entries(classes, bank.with_thresholds_for("none"))
    assert {(tag.threshold.source, tag.probability == ramp) for tag in entries} == {
        ("calibrated", True)
    }
    other = _tag_entries(classes, bank.with_thresholds_for("center"))
    assert {(tag.threshold.source, tag.probability) for tag in other} == {("default", None)}

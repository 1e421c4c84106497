"""Views: which part of a frame is looked at, from the export to the heatmap in the picture."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from taidpt.encoders.local_branch import image_encoder
from taidpt.encoders.views import plan_view, view_encoder
from taidpt.export.checks.verify import VerifyOptions, verify
from taidpt.export.engines.in_bundle import add_engine
from taidpt.export.exporter import ExportOptions, write_bundle
from taidpt.export.graph.resize import FrameInput
from taidpt.export.precision import quantise
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.replace_head import replace_head
from taidpt.progress import SilentProgress
from taidpt.runtime import Bundle, Tagger, TagResult, paint_heatmap
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.bundle.manifest import Manifest
from taidpt.runtime.bundle.view import View, ViewRequest
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.preprocess.nv12 import rgb_to_nv12
from taidpt.scores import global_scores
from tests.export.conftest import count_ops
from tests.export.test_exporter import some_prompts
from tests.support import require
from tests.taidpt.tiny import RESNET, VIT, make_clip

HEIGHT, WIDTH = 180, 320
# Every view has three rows of patches, and the brightest point may lie anywhere in the patch.
REACH = HEIGHT / 3
NV12 = FrameInput(HEIGHT, WIDTH, "nv12", "bt709", "full")
FORMS = {
    "crop": ExportOptions(),
    "whole": ExportOptions(view="whole"),
    "wide": ExportOptions(view="wide"),
    "tiles:2": ExportOptions(view="tiles:2"),
    "wide of NV12": ExportOptions(view="wide", frame=NV12),
    "tiles of frames": ExportOptions(view="tiles:2", frame=FrameInput(HEIGHT, WIDTH)),
}
# of a ViT with self-self attention
SELF = ExportOptions(view="wide", local_branch="self")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module", params=FORMS)
def bundle(request: pytest.FixtureRequest, folder: Path) -> Bundle:
    return exported(folder, str(request.param))


def exported(folder: Path, name: str) -> Bundle:
    """A small ResNet, 96 × 96 with patches of 32, in one of the forms; exported once.

    "self": a small ViT, 48 × 80 with patches of 16.
    """
    path = folder / f"{name.replace(':', '-')}.taidpt"
    if not path.exists():
        clip = make_clip(VIT if name == "self" else RESNET)
        options = SELF if name == "self" else FORMS[name]
        result = write_bundle(some_prompts(clip), clip, path, options, SilentProgress())
        assert result.parity.passed
    return Bundle.load(path)


def frame_of(pixels: np.ndarray, spec: InputSpec) -> np.ndarray:
    return rgb_to_nv12(pixels, *spec.colours) if spec.source_colours else pixels


def change_at(bundle: Bundle, centre: tuple[int, int]) -> tuple[float, float]:
    """Where the overlay shows that a painted square changed the patches: its brightest point.

    The heatmap is painted for a result whose patches say how far each moved.
    """
    spec = bundle.manifest.input
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plain = np.stack([90 + x // 8, 120 + y // 8, 100 + (x + y) // 16], axis=-1).astype(np.uint8)
    painted = plain.copy()
    top, left = centre[0] - 14, centre[1] - 14
    painted[top : top + 28, left : left + 28] = np.array([250, 20, 220])
    with Tagger.load(bundle.path) as tagger:
        before, after = (tagger.tag(frame_of(pixels, spec)) for pixels in (plain, painted))
    moved = np.linalg.norm(after.patch_features - before.patch_features, axis=1, keepdims=True)
    row = after.vocabulary.local_row(0)
    shown = TagResult(after.scores, moved * row, None, after.vocabulary)
    dark = Image.new("RGB", (WIDTH, HEIGHT))
    tag = after.vocabulary.names[0]
    light = np.asarray(paint_heatmap(dark, shown, tag, spec)).sum(axis=2, dtype=float)
    bright = light >= light.max() - 30
    return float(y[bright].mean()), float(x[bright].mean())


@pytest.mark.parametrize("centre", [(90, 160), (40, 120), (140, 200)])
def test_a_painted_square_in_the_middle_is_found(bundle: Bundle, centre: tuple[int, int]) -> None:
    found = change_at(bundle, centre)
    assert np.abs(np.subtract(found, centre)).max() <= REACH


@pytest.mark.parametrize("centre", [(40, 25), (150, 300)])
def test_a_painted_square_at_the_side_is_found_by_all_but_the_crop(
    bundle: Bundle, centre: tuple[int, int]
) -> None:
    if not bundle.manifest.input.view.sees_all:
        with pytest.raises(AssertionError):
            test_a_painted_square_in_the_middle_is_found(bundle, centre)
        return
    found = change_at(bundle, centre)
    assert np.abs(np.subtract(found, centre)).max() <= REACH


def test_manifest_and_graph_agree(bundle: Bundle) -> None:
    manifest = bundle.manifest
    spec, view = manifest.input, manifest.input.view
    graph = onnx.load(bundle.path / "model.onnx").graph
    sizes = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:]]
    assert tuple(sizes) == spec.frame_shape
    patches = next(value for value in graph.output if value.name == "patch_features")
    assert patches.type.tensor_type.shape.dim[1].dim_value == manifest.patches
    document = json.loads((bundle.path / "manifest.json").read_text())["input"]
    assert document["resize"] == ("both_sides" if view.sees_all else "shortest_side")
    assert ("view" in document) == view.sees_all
    with Tagger.load(bundle.path) as tagger:
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        heat = tagger(frame_of(frame, spec)).heatmap("dog")
    assert heat.shape == (3, 5 if view.kind in ("wide", "tiles") else 3)
    assert np.isfinite(heat).all()


@pytest.mark.parametrize(("bank_as", "top_k"), [("input", None), ("constant", 2)])
def test_another_head_keeps_the_tiles(folder: Path, bank_as: str, top_k: int | None) -> None:
    source = exported(folder, "tiles:2")
    path = folder / f"{bank_as}-{top_k}.taidpt"
    # random weights: patches differ by little more than the fp16 that they are stored in
    result = replace_head(source.path, path, bank_as, top_k, SilentProgress(), force=True)
    assert result.parity.head("scores").minimum > 0.9999
    assert result.manifest.input.view == source.manifest.input.view
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with Tagger.load(source.path) as one, Tagger.load(path) as other:
        expected, found = one(frame), other(frame)
    best = [tag.name for tag in expected.top(2)]
    assert [tag.name for tag in found.top(2)] == best
    assert found[best[0]].score == pytest.approx(expected[best[0]].score, abs=1e-4)
    assert found.global_features is not None
    assert found.global_features.shape == (2, 32)


@pytest.mark.parametrize("view", ["wide", "tiles:2", "self"])
def test_verify_with_pytorch_sees_the_same_view_and_branch(
    folder: Path, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vision = VIT if view == "self" else RESNET
    monkeypatch.setattr("taidpt.clip.model.load_clip", lambda *_: make_clip(vision))
    generator = np.random.default_rng(0)
    for index in range(2):
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    report = verify(exported(folder, view).path, VerifyOptions(images=tmp_path, torch="yes"))
    assert report.truth == "PyTorch"
    report.require()


def test_a_vit_sees_a_rectangle(folder: Path) -> None:
    manifest = exported(folder, "self").manifest
    assert manifest.input.crop_hw == (48, 80)
    assert manifest.model.grid == (3, 5)


def test_the_branch_is_in_the_manifest_and_changes_the_patches(folder: Path) -> None:
    bundle = exported(folder, "self")
    assert bundle.manifest.model.local_branch == "self"
    assert exported(folder, "wide").manifest.model.local_branch == "value"
    document = json.loads((bundle.path / "manifest.json").read_text())
    del document["model"]["local_branch"]
    older = json.dumps(document).encode()
    assert Manifest.from_bytes(older, "older").model.local_branch == "value"
    document["model"]["local_branch"] = "selves"
    with pytest.raises(BundleError, match="local_branch"):
        Manifest.from_bytes(json.dumps(document).encode(), "damaged")
    with pytest.raises(InputError, match="local branch 'selves'"):
        write_bundle(
            some_prompts(make_clip(VIT)),
            make_clip(VIT),
            folder / "none",
            ExportOptions(local_branch="selves"),
            SilentProgress(),
        )


def test_tiles_are_the_encoder_on_each_square() -> None:
    """A global feature a tile, of which each class takes the best; patches tile after tile."""
    encoder = image_encoder(make_clip())
    view, size = plan_view(ViewRequest.parse("tiles:2"), encoder, 96, 16 / 9)
    assert size == (96, 160)
    assert view.tiles is not None
    assert view.tiles.pixel_corners == ((0, 0), (0, 64))
    spec = InputSpec(*size, (0.5,) * 3, (0.25,) * 3, view=view)  # type: ignore[arg-type]
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(0))
    whole, patches = view_encoder(encoder, spec)(images)
    left, right = encoder(images[..., :96]), encoder(images[..., 64:])
    expected = torch.stack([left[0], right[0]], dim=1)
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    best = torch.maximum(*(global_scores(expected[:, tile], rows) for tile in (0, 1)))
    torch.testing.assert_close(global_scores(expected, rows), best)
    joined = torch.cat([left[1], right[1]], dim=1)
    torch.testing.assert_close(patches, joined, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "aspect", "size", "tiles"),
    [
        ("crop", 16 / 9, (96, 96), 0),
        ("whole", 16 / 9, (96, 96), 0),
        ("wide", 16 / 9, (96, 160), 0),
        ("wide", 9 / 16, (160, 96), 0),
        ("wide", 1.0, (96, 96), 0),
        ("tiles:2", 4 / 3, (96, 128), 2),
        ("tiles:2", 9 / 16, (160, 96), 2),
        ("tiles:4", 1.0, (192, 192), 4),
        ("tiles:6", 16 / 9, (160, 256), 6),
    ],
)
def test_sizes_of_views(text: str, aspect: float, size: tuple[int, int], tiles: int) -> None:
    encoder = image_encoder(make_clip())
    view, found = plan_view(ViewRequest.parse(text), encoder, 96, aspect)
    assert found == size
    assert str(view) == text
    assert (0 if view.tiles is None else len(view.tiles.corners)) == tiles
    if view.tiles is not None:
        assert view.tiles.fits(*size)
        covered = np.zeros(size, bool)
        for top, left in view.tiles.pixel_corners:
            covered[top : top + 96, left : left + 96] = True
        assert covered.all()


def test_more_tiles_than_squares_are_refused() -> None:
    with pytest.raises(InputError, match="no 2 different squares"):
        plan_view(ViewRequest.parse("tiles:2"), image_encoder(make_clip()), 96, 1.0)


@pytest.mark.parametrize(("vision", "expected"), [(RESNET, "wide"), (VIT, "crop")])
def test_auto_is_wide_where_the_tower_takes_rectangles(
    vision: dict[str, Any], expected: str
) -> None:
    encoder = image_encoder(make_clip(vision))
    assert ViewRequest.parse("auto").settle(encoder.any_size).kind == expected
    assert ViewRequest.parse("tiles:2").settle(encoder.any_size).kind == "tiles"


@pytest.mark.parametrize(
    "text",
    ["", "tile", "tiles", "tiles:1", "tiles:65", "wide:0x3", "wide:90x1", "crop:4x3", "wide:4:3"],
)
def test_other_views_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="view"):
        ViewRequest.parse(text)
    with pytest.raises(InputError, match="view"):
        dataclasses.replace(ExportOptions(), view=text)


@pytest.mark.parametrize("view", ["wide", "tiles:2", "self"])
def test_operators_are_the_golden_ones(folder: Path, view: str) -> None:
    """A change of the exported graph shows in review: UPDATE by hand when it is meant."""
    golden = Path(__file__).parent / "golden" / f"view_{view.partition(':')[0]}.json"
    counts = count_ops(onnx.load(exported(folder, view).path / "model.onnx"))
    assert counts == json.loads(golden.read_text())


def test_a_bundle_without_a_view_is_a_crop(bundle: Bundle) -> None:
    document = json.loads((bundle.path / "manifest.json").read_text())["input"]
    if bundle.manifest.input.view.kind == "crop":
        assert "view" not in document
        assert bundle.manifest.input.view == View()


@pytest.mark.tensorrt
@pytest.mark.parametrize("view", ["tiles:2", "self"])  # the second is wide
def test_tensorrt_rtx_builds_int8_engines_calibrated_on_the_view(
    folder: Path, view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = importlib.util.find_spec("tensorrt_rtx") is not None
    require("tensorrt-rtx", there, "pip install tensorrt_rtx")
    path = tmp_path / "a.taidpt"
    shutil.copytree(exported(folder, view).path, path)
    generator = np.random.default_rng(0)
    for index in range(8):
        pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    seen: list[tuple[int, ...]] = []
    ranges = quantise.activation_ranges

    def watched(encoder: Any, frames: np.ndarray, *others: Any) -> Any:
        seen.append(frames.shape)
        return ranges(encoder, frames, *others)

    monkeypatch.setattr(quantise, "activation_ranges", watched)
    options = EngineOptions("int8", (1, 1, 2), 1 << 30, "tensorrt-rtx", "sm_86")
    # random weights do not keep a precision's bound
    request = EngineRequest(options, calibrate=tmp_path, force=True)
    result = add_engine(path, request, SilentProgress())
    spec = Bundle.load(path).manifest.input
    assert seen[0] == (8, *spec.frame_shape)
    assert spec.crop_hw == ((48, 80) if view == "self" else (96, 160))
    assert result.path.stat().st_size > 100_000

"""The parity gate fails for each classic silent fault, on random and on embedded weights."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
import torch

from taidpt.clip.model import ClipModel
from taidpt.encoders.local_branch import image_encoder
from taidpt.export.graph.head import append_head
from taidpt.export.parity.centred_cosine import (
    EXPORT_BOUND,
    ParityReport,
    Sides,
    centred_cosines,
    compare,
)
from taidpt.export.parity.graph_outputs import encoder_pixels, graph_outputs
from taidpt.export.parity.reference_pictures import generated_pictures, heldout_pictures
from taidpt.export.parity.torch_reference import TorchReference
from taidpt.runtime.bundle.manifest import InputSpec, Scoring
from taidpt.runtime.bundle.view import plan_crop
from taidpt.runtime.errors import InputError, ParityError
from tests.export.conftest import export_encoder, small_bank, small_input
from tests.taidpt.tiny import make_clip

WEIGHTS = ("random", "embedded")
Arrays = dict[str, np.ndarray]


class Line:
    """An exported model beside its PyTorch original, and pictures of full size."""

    def __init__(self, clip: ClipModel, pictures: list[np.ndarray]) -> None:
        size = clip.image_size
        self.spec = InputSpec(size, size, clip.mean, clip.std)
        encoder = image_encoder(clip)
        bank, scoring = small_bank(9, clip.embed_dim), Scoring(40.0)
        graph = export_encoder(encoder, InputSpec(size, size, clip.mean, clip.std))
        self.graph = append_head(graph, bank, scoring)
        self.pictures = pictures
        self.reference = TorchReference(encoder, self.spec, bank, scoring)
        self.crops = encoder_pixels(self.spec, pictures)
        self.expected = self.reference.outputs(self.crops)

    def compare(self, found: Arrays, crops: np.ndarray | None = None) -> ParityReport:
        """The gate on a graph's outputs, for crops of the runtime's preprocessing."""
        sides = Sides("PyTorch", "the graph", tuple(map(str, range(len(self.pictures)))))
        both_crops = self.reference.pixels(self.pictures), self.crops if crops is None else crops
        return compare(self.expected, found, sides, EXPORT_BOUND, both_crops)

    def compare_preprocessing(self, crops: np.ndarray) -> ParityReport:
        """The gate on a right graph behind another preprocessing."""
        expected = self.reference.outputs(crops)
        found = graph_outputs(self.graph, self.spec, list(crops))
        sides = Sides("PyTorch", "the graph", tuple(map(str, range(len(self.pictures)))))
        both_crops = self.reference.pixels(self.pictures), crops
        return compare(expected, found, sides, EXPORT_BOUND, both_crops)


@cache
def line(weights: str) -> Line:
    if weights == "random":
        clip, pictures = make_clip(), generated_pictures(96)
    else:
        from taidpt.clip.model import load_clip

        clip = load_clip("toyworld", "embedded")
        pictures = [*generated_pictures(clip.image_size), *heldout_pictures()]
    return Line(clip, [picture.pixels for picture in pictures])


@pytest.fixture(params=WEIGHTS)
def subject(request: pytest.FixtureRequest) -> Line:
    return line(request.param)


def require_failure(report: ParityReport) -> None:
    for name in ("global_features", "patch_features", "scores"):
        assert report.head(name).minimum < 0.99, name
    with pytest.raises(ParityError, match="disagrees with PyTorch: centred cosine scores"):
        report.require()
    assert ParityError.exit_code == 1


def test_a_faithful_graph_passes(subject: Line) -> None:
    report = subject.compare(graph_outputs(subject.graph, subject.spec, subject.pictures))
    report.require()
    assert report.passed
    assert report.largest_grey_level <= 1
    for head in report.heads:
        assert head.minimum > 0.9999, head.name
    assert report.head("scores").largest_difference < 0.002


class Sharp(torch.nn.Module):
    """An encoder that turns a grey level in few pixels into large differences of features."""

    def __init__(self) -> None:
        super().__init__()
        weights = np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32)
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        waves = torch.sin(200 * pictures)  # a grey level is half a wave
        patches = torch.nn.functional.conv2d(waves, self.weights, stride=8)
        patches = patches.flatten(2).transpose(1, 2)
        return patches.mean(1), patches


def test_a_right_graph_of_a_sharp_encoder_passes() -> None:
    """Rounding in the resize is no fault of the graph: it is judged on equal pixels."""
    encoder, shape = Sharp().eval(), small_input()
    spec = InputSpec(shape.height, shape.width, shape.mean, shape.std)
    bank, scoring = small_bank(), Scoring(40.0)
    graph = append_head(export_encoder(encoder, shape), bank, scoring)
    pictures = [picture.pixels for picture in generated_pictures(shape.height)]
    reference = TorchReference(encoder, spec, bank, scoring)
    crops = encoder_pixels(spec, pictures)
    rounded = crops.copy()  # as a resize that rounds otherwise in one value of a thousand
    chosen = np.random.default_rng(0).random(crops.shape) < 0.001
    rounded[chosen] ^= 1
    found = graph_outputs(graph, spec, list(crops))
    sides = Sides("PyTorch", "the graph", tuple(map(str, range(len(pictures)))))
    unequal = compare(reference.outputs(rounded), found, sides)
    assert not unequal.passed, "the encoder is not sharp enough for this test"
    report = compare(reference.outputs(crops), found, sides, EXPORT_BOUND, (rounded, crops))
    report.require()


def test_swapped_channels_in_the_graph_fail(subject: Line) -> None:
    swapped = list(np.ascontiguousarray(subject.crops[..., ::-1]))
    require_failure(subject.compare(graph_outputs(subject.graph, subject.spec, swapped)))


def test_swapped_channels_in_the_preprocessing_fail(subject: Line) -> None:
    require_pixel_failure(subject, np.ascontiguousarray(subject.crops[..., ::-1]))


def require_pixel_failure(subject: Line, crops: np.ndarray) -> None:
    """The graph is right, and the preprocessing alone is at fault."""
    report = subject.compare_preprocessing(crops)
    assert not report.failures()
    assert not report.passed
    with pytest.raises(ParityError, match=r"preprocessing disagrees .* by \d+ grey levels on \d"):
        report.require()


def test_missing_normalisation_fails(subject: Line) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(subject.graph)
    plain = {"encoder/scale": 1 / 255, "encoder/shift": 0.0}
    for tensor in graph.graph.initializer:
        if tensor.name in plain:
            value = np.full((1, 3, 1, 1), plain.pop(tensor.name), np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    assert not plain, "the normalisation has other names now"
    require_failure(subject.compare(graph_outputs(graph, subject.spec, subject.pictures)))


def test_resize_without_antialiasing_fails(subject: Line) -> None:
    size = subject.spec.height
    require_pixel_failure(
        subject, np.stack([resize_without_filter(pixels, size) for pixels in subject.pictures])
    )


def test_a_crop_that_is_moved_by_a_pixel_fails(subject: Line) -> None:
    require_pixel_failure(subject, np.roll(subject.crops, 1, axis=2))


def test_a_grey_level_passes_and_two_fail(subject: Line) -> None:
    wanted = subject.reference.pixels(subject.pictures)
    for step, passes in ((1, True), (2, False)):
        crops = np.where(wanted > 127, wanted - step, wanted + step).astype(np.uint8)
        assert subject.compare_preprocessing(crops).passed is passes


@pytest.mark.parametrize(
    ("step", "share", "passes"), [(2, 0.005, True), (3, 0.005, False), (2, 0.02, False)]
)
def test_two_levels_pass_in_few_values_alone(step: int, share: float, passes: bool) -> None:
    subject = line("random")
    wanted = subject.reference.pixels(subject.pictures)
    chosen = np.random.default_rng(1).random(wanted.shape) < share
    moved = np.where(wanted > 127, wanted - step, wanted + step).astype(np.uint8)
    crops = np.where(chosen, moved, wanted)
    assert subject.compare_preprocessing(crops).passed is passes


def test_pictures_more_than_twice_as_high_as_wide_agree_in_every_version_of_pillow() -> None:
    subject = line("random")
    generator = np.random.default_rng(2)
    noise = [generator.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((430, 179), (900, 110))]
    found = encoder_pixels(subject.spec, noise).astype(int)
    assert np.abs(found - subject.reference.pixels(noise)).max() <= 1


def resize_without_filter(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bicubic without a filter, as in many runtimes, and the same crop."""
    plan = plan_crop((pixels.shape[0], pixels.shape[1]), (size, size))
    image = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        image, (plan.resized_height, plan.resized_width), mode="bicubic", antialias=False
    )
    crop = resized[0, :, plan.top : plan.top + size, plan.left : plan.left + size]
    return crop.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def test_plain_cosine_would_not_see_it() -> None:
    """Why the mean is subtracted: without that the swap of red and blue all but passes."""
    subject = line("random")
    swapped = [np.ascontiguousarray(pixels[..., ::-1]) for pixels in subject.pictures]
    found = graph_outputs(subject.graph, subject.spec, swapped)["global_features"]
    plain = (found * subject.expected["global_features"]).sum(axis=1)
    centred = centred_cosines(subject.expected["global_features"], found)
    assert plain.min() > 0.95
    assert centred.min() < 0.5


def test_report_holds_every_value(subject: Line) -> None:
    report = subject.compare(graph_outputs(subject.graph, subject.spec, subject.pictures))
    document = report.to_json()
    assert document["schema"] == 1
    assert document["passed"] is True
    for name in ("scores", "global_features", "patch_features"):
        output = document["outputs"][name]
        assert len(output["per_picture"]) == len(subject.pictures)
        assert output["minimum"] == min(output["per_picture"])


def test_a_constant_offset_shows() -> None:
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((6, 4, 8))
    np.testing.assert_allclose(centred_cosines(reference, reference), 1)
    assert centred_cosines(reference, reference + 2).min() < 0.9


def test_degenerate_values() -> None:
    ones = np.ones((3, 4, 8), np.float32)
    np.testing.assert_array_equal(centred_cosines(ones, ones), 1)
    broken = ones.copy()
    broken[1, 2] = np.nan
    assert centred_cosines(ones, broken)[1, 2] == -1
    with pytest.raises(InputError, match="at least two pictures"):
        centred_cosines(ones[:1], ones[:1])
    with pytest.raises(ParityError, match="differ in shape"):
        centred_cosines(ones, ones[:, :2])


def test_not_finite_results_fail_and_are_written_as_json() -> None:
    subject = line("random")
    found = {name: values.copy() for name, values in subject.expected.items()}
    found["scores"][3, 0] = np.nan
    report = subject.compare(found)
    assert [head.name for head in report.failures()] == ["scores"]
    assert b"NaN" not in report.to_bytes()


def test_missing_output_fails() -> None:
    subject = line("random")
    found = {name: v for name, v in subject.expected.items() if name != "patch_features"}
    with pytest.raises(ParityError, match="no output patch_features"):
        subject.compare(found)


def test_pictures_are_the_same_every_time_and_larger_than_the_model() -> None:
    first, second = generated_pictures(96), generated_pictures(96)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert min(one.pixels.shape[:2]) > 96
        assert one.pixels.dtype == np.uint8
    assert len({picture.pixels.shape for picture in first}) >= 4

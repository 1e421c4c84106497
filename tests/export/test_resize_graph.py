"""The resize inside the graph against Pillow, from camera frames of RGB and NV12."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

from taidpt.export.graph_io import run_graph
from taidpt.export.pictures import generated_pictures
from taidpt.export.resize_graph import FrameInput, prepend_resize, yuv_to_rgb
from taidpt.runtime.errors import InputError
from taidpt.runtime.manifest import InputSpec
from taidpt.runtime.preprocess import Preprocessor
from tests.export.conftest import MEAN, STD, small_graph

CROP = (64, 64)
GREY_LEVEL = 0.03  # of the normalised tensor; 1 / 255 / the least deviation is 0.0154


def identity_encoder() -> onnx.ModelProto:
    """Gives back the pixels, so that the resize alone is seen."""
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node(
            "Cast", ["frames"], ["encoder/floats"], name="encoder/cast", to=types.FLOAT
        ),
        helper.make_node("Identity", ["encoder/floats"], ["pixels"], name="encoder/same"),
    ]
    shape = ["batch", *CROP, 3]
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("frames", types.UINT8, shape)],
        [helper.make_tensor_value_info("pixels", types.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def camera_frames(height: int, width: int) -> np.ndarray:
    """Pictures of much detail, brought to the camera's size."""
    frames = [
        np.asarray(
            Image.fromarray(picture.pixels).resize((width, height), Image.Resampling.NEAREST)
        )
        for picture in generated_pictures(max(height, width) // 2)
    ]
    return np.stack(frames)


def pillow(frames: np.ndarray) -> np.ndarray:
    """Whole frames resized by Pillow, then cropped, as open_clip's transform does."""
    from taidpt.runtime.resize import plan_crop

    plan = plan_crop((frames.shape[1], frames.shape[2]), CROP)
    size = (plan.resized_width, plan.resized_height)
    rows, columns = slice(plan.top, plan.top + CROP[0]), slice(plan.left, plan.left + CROP[1])
    return np.stack(
        [
            np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC))[rows, columns]
            for f in frames
        ]
    )


def levels(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differences on the normalised tensor."""
    return np.abs(first.astype(np.float64) - second) / 255 / np.array(STD)


@pytest.mark.parametrize(
    ("height", "width"), [(270, 480), (480, 270), (64, 64), (99, 101), (40, 50)]
)
def test_rgb_equals_pillow(height: int, width: int) -> None:
    graph = prepend_resize(identity_encoder(), FrameInput(height, width), CROP)
    frames = camera_frames(height, width)
    got = run_graph(graph, {"frames": frames})["pixels"]
    difference = levels(got, pillow(frames))
    assert difference.max() <= GREY_LEVEL
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("standard", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_nv12_equals_conversion_then_pillow(standard: str, full_range: bool) -> None:
    height, width = 180, 320
    generator = np.random.default_rng(0)
    frames = np.stack(
        [
            np.concatenate(
                [picture.mean(axis=2), generator.integers(0, 256, (height // 2, width))]
            ).astype(np.uint8)
            for picture in camera_frames(height, width)
        ]
    )
    frame = FrameInput(height, width, "nv12", standard, full_range)
    got = run_graph(prepend_resize(identity_encoder(), frame, CROP), {"frames": frames})["pixels"]
    luma = frames[:, :height].astype(np.float64)
    chroma = frames[:, height:].reshape(len(frames), height // 2, width // 2, 2)
    yuv = np.concatenate([luma[..., None], chroma.repeat(2, axis=1).repeat(2, axis=2)], axis=3)
    matrix, offset = yuv_to_rgb(standard, full_range)
    rgb = np.clip(np.floor(yuv @ matrix.T.astype(np.float64) + offset + 0.5), 0, 255)
    difference = levels(got, pillow(rgb.astype(np.uint8)))
    assert np.percentile(difference, 99.9) <= GREY_LEVEL


def test_conversion_knows_black_white_and_the_primaries() -> None:
    for standard, red in (("bt601", (81, 90, 240)), ("bt709", (63, 102, 240))):
        matrix, offset = yuv_to_rgb(standard, full_range=False)
        np.testing.assert_allclose(matrix @ [16, 128, 128] + offset, 0, atol=1e-3)
        np.testing.assert_allclose(matrix @ [235, 128, 128] + offset, 255, atol=1e-3)
        np.testing.assert_allclose(matrix @ red + offset, [255, 0, 0], atol=2.5)
        full, shift = yuv_to_rgb(standard, full_range=True)
        np.testing.assert_allclose(full @ [255, 128, 128] + shift, 255, atol=1e-3)


def test_real_encoder_gives_the_same_features(family: str) -> None:
    """Resize in the graph against resize by the runtime, through a whole encoder."""
    frames = camera_frames(180, 320)
    graph = prepend_resize(small_graph(family), FrameInput(180, 320), CROP)
    onnx.checker.check_model(graph, full_check=True)
    got = run_graph(graph, {"frames": frames})
    crops = Preprocessor(InputSpec(*CROP, MEAN, STD)).batch(frames)
    expected = run_graph(small_graph(family), {"frames": crops})
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(got[name] / scale, values / scale, atol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "expected a size such as 1920x1080"),
        ((9, 10, "nv12"), "NV12 frames have even sides, got 10x9"),
        ((8, 8, "yuy2"), "is not one of rgb, nv12"),
        ((8, 8, "nv12", "bt2020"), "is not one of bt601, bt709"),
    ],
)
def test_bad_frames(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameInput(*arguments)  # type: ignore[arg-type]

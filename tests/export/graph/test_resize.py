"""The resize inside the graph against Pillow, from camera frames of RGB and NV12."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from taidpt.export.cli.steps import ENGINE_OPTIONS, read_options
from taidpt.export.graph.onnx_files import run_graph
from taidpt.export.graph.resize import FrameInput, prepend_resize
from taidpt.export.parity.reference_pictures import generated_pictures
from taidpt.runtime.bundle.input_spec import InputSpec
from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.nv12 import nv12_to_rgb
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from tests.export.conftest import MEAN, STD, small_graph

CROP = (64, 64)
CROP_SPEC = InputSpec(*CROP, MEAN, STD)
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
    from taidpt.runtime.bundle.view import plan_crop

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
    graph = prepend_resize(identity_encoder(), FrameInput(height, width).spec(CROP_SPEC))
    frames = camera_frames(height, width)
    got = run_graph(graph, {"frames": frames})["pixels"]
    difference = levels(got, pillow(frames))
    assert difference.max() <= GREY_LEVEL
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("extent", ["limited", "full"])
def test_nv12_equals_conversion_then_pillow(matrix: str, extent: str) -> None:
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
    spec = FrameInput(height, width, "nv12", matrix, extent).spec(CROP_SPEC)
    got = run_graph(prepend_resize(identity_encoder(), spec), {"frames": frames})["pixels"]
    rgb = np.stack([nv12_to_rgb(frame, *spec.colours) for frame in frames])
    assert np.percentile(levels(got, pillow(rgb)), 99.9) <= GREY_LEVEL


def test_real_encoder_gives_the_same_features(family: str) -> None:
    """Resize in the graph against resize by the runtime, through a whole encoder."""
    frames = camera_frames(180, 320)
    graph = prepend_resize(small_graph(family), FrameInput(180, 320).spec(CROP_SPEC))
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
        ((8, 8, "nv12", "bt601", "tv"), "is not one of limited, full"),
    ],
)
def test_bad_frames(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FrameInput(*arguments)  # type: ignore[arg-type]


def test_options_of_the_command() -> None:
    def read(**given: str) -> FrameInput | None:
        options = {f"frame_{name}": given.get(name) for name in ("format", "matrix", "range")}
        every = dict.fromkeys(ENGINE_OPTIONS) | options | {"frame_size": given.get("size")}
        every |= {"images": None, "force": False, "jetpack5": False, "swappable_bank": False}
        every |= {"view": "crop"}
        return read_options(Path("street.safetensors"), None, every)[1]["frame"]  # type: ignore[no-any-return]

    assert read() is None
    assert read(size="1920x1080") == FrameInput(1080, 1920)
    assert read(size="64x48", format="nv12") == FrameInput(48, 64, "nv12", "bt709", "limited")
    wanted = FrameInput(48, 64, "nv12", "bt601", "full")
    assert read(size="64x48", format="nv12", matrix="bt601", range="full") == wanted
    with pytest.raises(InputError, match="--frame-format needs the camera's size: --frame-size"):
        read(format="nv12")
    with pytest.raises(InputError, match="are for --frame-format nv12"):
        read(size="64x48", range="full")

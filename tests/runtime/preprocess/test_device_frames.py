"""Frames of other libraries: by DLPack from the CPU, and what claims to lie on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from taidpt.runtime.errors import InputError
from taidpt.runtime.preprocess.device_frames import DeviceFrames, take_frames
from taidpt.runtime.tagger.tagger import Tagger


def frames(count: int = 2, height: int = 16, width: int = 16) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


class Exporter:
    """What has DLPack and nothing else of NumPy."""

    def __init__(self, array: np.ndarray, kind: int = 1) -> None:
        self._array, self._kind = array, kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._kind, 0

    def __dlpack__(self, **options: Any) -> Any:
        options.pop("stream", None)
        return self._array.__dlpack__(**options)


class Surface:
    """What claims to lie on a GPU by CUDA's array interface."""

    def __init__(self, **interface: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": (16, 16, 3),
            "typestr": "|u1",
            "data": (0x7F0000000000, True),
            "strides": None,
            "version": 3,
            "stream": None,
            **interface,
        }


def test_host_memory_of_another_library_is_not_copied(tagger: Tagger) -> None:
    for batch in (frames(), frames(2, 40, 30)):
        expected = tagger.tag_batch(batch)
        taken = take_frames(Exporter(batch))
        assert isinstance(taken, np.ndarray)
        assert np.shares_memory(taken, batch)
        np.testing.assert_array_equal(tagger.tag_batch(Exporter(batch)).scores, expected.scores)
        one = tagger(Exporter(batch[1]))
        np.testing.assert_allclose(one.scores, expected.scores[1], atol=1e-6)
        listed = tagger([Exporter(frame) for frame in batch])
        np.testing.assert_allclose(listed.scores, expected.scores, atol=1e-6)


def test_torch_tensors_on_the_cpu(tagger: Tagger) -> None:
    torch = pytest.importorskip("torch")
    batch = frames(3, 20, 24)
    expected = tagger.tag_batch(batch)
    np.testing.assert_array_equal(tagger.tag_batch(torch.from_numpy(batch)).scores, expected.scores)
    with pytest.raises(InputError, match="got float32; multiply by 255"):
        tagger(torch.zeros(16, 16, 3))
    with pytest.raises(InputError, match="move the channels last"):
        tagger(torch.zeros(3, 16, 16, dtype=torch.uint8))


def test_gpu_memory_is_described_and_left_where_it_is() -> None:
    taken = take_frames(Surface(shape=(2, 16, 16, 3), stream=5))
    assert isinstance(taken, DeviceFrames)
    assert (taken.address, taken.shape) == (0x7F0000000000, (2, 16, 16, 3))
    assert (taken.stream, taken.nbytes, len(taken)) == (5, 2 * 16 * 16 * 3, 2)
    older = Surface()
    del older.__cuda_array_interface__["stream"]
    assert take_frames(older).stream == 1  # type: ignore[union-attr]  # the default stream
    dense = Surface(strides=(48, 3, 1))
    assert take_frames(dense).stream is None  # type: ignore[union-attr]
    # the memory is the CPU's here: only what the capsule says is looked at
    batch = frames()
    by_dlpack = take_frames(Exporter(batch, kind=2))
    assert isinstance(by_dlpack, DeviceFrames)
    assert by_dlpack.address == batch.ctypes.data
    assert (by_dlpack.shape, by_dlpack.device) == (batch.shape, 0)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Surface(typestr="<f4"), "should be uint8, got float32"),
        (Surface(strides=(64, 4, 1)), "should be dense, got strides"),
        (Surface(shape=(0, 16, 3)), "should not be empty"),
        (Surface(data=None), "damaged"),
        (Exporter(frames()[0].astype(np.float32), kind=2), "should be uint8, got DLPack type"),
        (Exporter(frames()[0][:, ::2], kind=2), "should be dense"),
        (Exporter(frames()[0], kind=10), "on a device of DLPack type 10"),
    ],
)
def test_gpu_frames_that_cannot_be_taken(tagger: Tagger, frame: object, why: str) -> None:
    with pytest.raises(InputError, match=why):
        tagger(frame)


def test_a_tagger_on_the_cpu_does_not_take_gpu_frames(tagger: Tagger) -> None:
    with pytest.raises(InputError, match="lie on GPU 0, and this tagger runs on the CPU"):
        tagger(Surface())
    for batch in (Surface(shape=(2, 16, 16, 3)), Exporter(frames(), kind=2)):
        with pytest.raises(InputError, match="lie on GPU 0, and this tagger runs on the CPU"):
            tagger.tag_batch(batch)
    with pytest.raises(InputError, match=r"GPU frames of 16x16, .* got \[16, 20, 3\]; resize"):
        tagger(Surface(shape=(16, 20, 3)))
    with pytest.raises(InputError, match="give GPU frames to the tagger itself, one by one"):
        tagger([Surface()])

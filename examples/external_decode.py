"""Frames that another library decoded and left in the GPU's memory: tagged where they lie.

    python examples/external_decode.py street.taidpt clip.mp4

Decoded by NVDEC through PyNvVideoCodec (`pip install PyNvVideoCodec`); DeepStream, CuPy, CV-CUDA or
PyTorch are the same: whatever has DLPack or `__cuda_array_interface__` goes into the tagger as it
is. The frames must be of the size that the graph takes, so export for your camera:
`taidpt-export street.safetensors -o street.taidpt --frame 1920x1080`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import PyNvVideoCodec as nvc  # noqa: N813 - as its own documentation has it

from taidpt.runtime import Tagger


def decoded(video: str) -> Iterator[object]:
    """RGB frames [H, W, 3], uint8, in the memory of GPU 0."""
    decoder = nvc.SimpleDecoder(
        video,
        gpu_id=0,
        use_device_memory=True,
        output_color_type=nvc.OutputColorType.RGB,
    )
    for index in range(len(decoder)):
        yield decoder[index]


def main(bundle: str, video: str) -> None:
    """No frame comes to host memory: only scores and features do."""
    with Tagger.load(bundle) as tagger:
        print(tagger.device)
        for index, frame in enumerate(decoded(video)):
            result = tagger(frame)
            tags = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in result.top(3))
            print(f"frame {index}: {tags}")


if __name__ == "__main__":
    main(*sys.argv[1:])

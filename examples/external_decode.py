"""Tag frames that another library decoded into GPU memory, without a copy.

    python examples/external_decode.py street.taidpt clip.mp4

NVDEC decodes through PyNvVideoCodec (`pip install PyNvVideoCodec`). Frames of DeepStream, CuPy,
CV-CUDA or PyTorch work the same way: the tagger takes objects with DLPack or
`__cuda_array_interface__`. Frames must have the size that the graph takes; export for your camera:
`taidpt-export street.safetensors -o street.taidpt --frame-size 1920x1080`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from taidpt import Tagger, TaidptError


def decoded(video: str) -> Iterator[object]:
    """Yield RGB frames [H, W, 3], uint8, in the memory of GPU 0."""
    import PyNvVideoCodec as nvc  # noqa: N813 - as its own documentation has it

    decoder = nvc.SimpleDecoder(
        video,
        gpu_id=0,
        use_device_memory=True,
        output_color_type=nvc.OutputColorType.RGB,
    )
    for index in range(len(decoder)):
        yield decoder[index]


def main(bundle: str, video: str) -> None:
    """Print the best tags of each frame; only scores and features are copied to the host."""
    if not Path(video).is_file():
        sys.exit(f"error: {video}: no such file")
    with Tagger.load(bundle) as tagger:
        print(tagger.device)
        for index, frame in enumerate(decoded(video)):
            result = tagger(frame)
            tags = ", ".join(f"{tag.name} {tag.score:.2f}" for tag in result.top(3))
            print(f"frame {index}: {tags}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

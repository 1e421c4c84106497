"""Tag a video that `supervision` reads, and draw the tags that are on with its own annotator.

    python examples/with_supervision.py street.taidpt clip.mp4 tagged.mp4

`pip install supervision`. A tag is of the whole frame: each becomes a label at the left edge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from taidpt import Tagger, TaidptError


def main(bundle: str, video: str, target: str) -> None:
    """Write the video with its tags, and print in how many frames any was on."""
    import supervision as sv

    if not Path(video).is_file():
        sys.exit(f"error: {video}: no such file")
    labels = sv.LabelAnnotator(text_position=sv.Position.TOP_LEFT)
    tagged = 0
    with (
        Tagger.load(bundle) as tagger,
        sv.VideoSink(target, sv.VideoInfo.from_video_path(video)) as sink,
    ):
        for frame in sv.get_video_frames_generator(video):  # BGR, as OpenCV has it
            tags = list(tagger(frame, bgr=True))
            tagged += bool(tags)
            if tags:
                rows = np.arange(1, len(tags) + 1) * 24
                boxes = np.stack([rows * 0, rows, rows * 0 + 1, rows + 1], axis=1)
                spots = sv.Detections(boxes.astype(float), class_id=np.arange(len(tags)))
                texts = [f"{tag.name} {tag.score:.2f}" for tag in tags]
                frame = labels.annotate(frame, spots, labels=texts)
            sink.write_frame(frame)
    print(f"{target}: tags in {tagged} frames")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except TaidptError as error:  # one line: what is wrong, and what to do
        sys.exit(f"error: {error}")

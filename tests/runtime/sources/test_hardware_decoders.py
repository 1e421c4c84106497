"""Hardware decoders: taken where they work, else said so; asked for by name, they work or fail."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from taidpt.runtime.errors import InputError, MissingDependencyError
from taidpt.runtime.sources import hardware_decoders as hardware
from taidpt.runtime.sources.base import SourceOptions
from taidpt.runtime.sources.hardware_decoders import open_decoding
from taidpt.runtime.sources.open import open_source
from taidpt.runtime.sources.video_file import open_input


def test_auto_falls_back_to_software_with_a_line_in_the_log(
    video_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A kind of device that no machine has stands for one whose driver does not start."""
    opened = partial(open_input, str(video_path))
    with caplog.at_level(logging.INFO, "taidpt.runtime"):
        container = open_decoding("auto", opened, "clip", likely=["no such kind"])
        assert not container.streams.video[0].codec_context.is_hwaccel
        assert len(list(container.decode(video=0))) == 100
        container.close()
    [record] = caplog.records
    assert record.getMessage().startswith(
        "clip: decoded in software, because no such kind does not start: "
    )


def test_where_there_is_no_device_nothing_is_said(
    video_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "taidpt.runtime"):
        open_decoding("auto", partial(open_input, str(video_path)), "clip", likely=[]).close()
    assert not caplog.records


def test_software_gives_the_same_frames_as_auto(video_path: Path) -> None:
    soft = list(open_source(video_path, SourceOptions(every=20, decoder="software")))
    auto = list(open_source(video_path, SourceOptions(every=20)))
    for one, other in zip(soft, auto, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 3


def test_a_decoder_asked_for_works_or_fails(video_path: Path) -> None:
    hint = r"this PyAV has .*; --decoder software decodes on the CPU"
    with pytest.raises(InputError, match=rf"colours\.mp4: .*no decoder 'magic'; {hint}"):
        open_source(video_path, SourceOptions(decoder="magic"))
    # H.264 has no decoder of this kind in any FFmpeg that we know of
    with pytest.raises(InputError, match=f"the decoder drm does not start here: .*{hint}"):
        open_source(video_path, SourceOptions(decoder="drm"))


def test_an_old_pyav_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, video_path: Path) -> None:
    monkeypatch.setattr(hardware, "_built_in", list)
    with pytest.raises(MissingDependencyError, match="has no hardware decoders; pip install"):
        open_source(video_path, SourceOptions(decoder="cuda"))
    assert hardware.likely_devices() == []
    open_source(video_path).close()

"""What the runtime loads, and what it never does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import taidpt.runtime
from tests.support import REPOSITORY

HEAVY = ("torch", "onnx", "onnxruntime", "av", "PIL", "open_clip", "safetensors")


def loaded_by(code: str, *arguments: str) -> set[str]:
    """Which heavy packages a fresh process has loaded after running some code."""
    probe = f"{code}\nimport sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    command = [sys.executable, "-c", probe, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(done.stdout.split())


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    assert loaded_by("import taidpt.runtime") == set()
    assert (
        loaded_by("from taidpt.runtime import Tagger, Bundle, open_source, EventMachine") == set()
    )


TAG_A_FRAME = """
import sys, numpy
from taidpt.runtime import Tagger
result = Tagger.load(sys.argv[1])(numpy.full((16, 16, 3), 90, numpy.uint8))
assert len(result.tags) == 5 and result.heatmap("dog").shape == (4, 4)
"""


def test_tagging_a_frame_of_the_models_size_loads_onnxruntime_alone(bundle_path: Path) -> None:
    assert loaded_by(TAG_A_FRAME, str(bundle_path)) == {"onnxruntime"}


NOT_LOADED = """
unneeded = ("logging", "taidpt.runtime.preprocess.resize",
            "taidpt.runtime.preprocess.device_frames", "cuda",
            "taidpt.runtime.backends.tensorrt_engine", "taidpt.runtime.tagger.live_bank")
print(*[name for name in unneeded if name in sys.modules])
"""


def test_what_such_a_frame_does_not_need_is_not_loaded(bundle_path: Path) -> None:
    command = [sys.executable, "-c", TAG_A_FRAME + NOT_LOADED, str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.split() == []


TAG_A_VIDEO = """
import sys
from taidpt.runtime import Tagger
moments = list(Tagger.load(sys.argv[1]).stream(sys.argv[2], every=50))
assert len(moments) == 2
"""


def test_tagging_a_video_loads_no_torch(bundle_path: Path, video_path: Path) -> None:
    assert loaded_by(TAG_A_VIDEO, str(bundle_path), str(video_path)) <= {"onnxruntime", "av", "PIL"}


PROMISED = """
BackendError Bundle BundleError BundleWriter ClassBank EngineNotBuiltError Event EventMachine
EventSettings Frame InputError Interval Manifest MissingDependencyError ParityError Preprocessor
Tag TagBatch TagResult Tagger TaidptError Threshold open_source read_image timeline
"""


def test_every_public_name_can_be_had() -> None:
    for name in PROMISED.split():
        assert getattr(taidpt.runtime, name).__name__ == name
        assert name in dir(taidpt.runtime)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        taidpt.runtime.Nothing  # noqa: B018

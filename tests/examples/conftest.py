"""The bundle and the video of the runtime's tests."""

from tests.runtime.conftest import bundle_path, video_path

__all__ = ["bundle_path", "video_path"]

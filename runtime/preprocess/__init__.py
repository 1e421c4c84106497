"""A frame of any size to the array that the graph takes."""

__all__ = ["RESIZES"]

# exact: open_clip's resize within one grey level; fast: some levels off at edges; decoder: FFmpeg
RESIZES = ("exact", "fast", "decoder")

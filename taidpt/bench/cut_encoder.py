"""Cuts a bundle's graph at its features: the encoder alone, which `taidpt bench` compares with.

    python -m taidpt.bench.cut_encoder GRAPH FRAMES OUT

Runs in its own process, so that the runtime loads no onnx. FRAMES is the graph's input name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from taidpt.runtime.bundle.onnx_weights import check_external_data, data_name

__all__ = ["FEATURES", "cut_encoder", "main"]

FEATURES = ("global_features", "patch_features")


def cut_encoder(graph: Path, frames: str, out: Path) -> None:
    """Write the part of a graph from the frames to the unit features.

    Args:
        graph: an ONNX file with its weights inside or beside it.
        frames: name of its input.
        out: the file to write; its weights are placed as those of `graph`.
    Raises:
        BundleError: the graph is unreadable, or its weights are elsewhere.
        ValueError: the graph has no such input or features.
    """
    import onnx

    check_external_data(graph)
    extractor = onnx.utils.Extractor(onnx.load(graph))
    encoder = extractor.extract_model([frames], list(FEATURES))
    beside = graph.with_name(data_name(graph.name)).is_file()
    onnx.save(encoder, out, save_as_external_data=beside, location=data_name(out.name))


def main(arguments: list[str]) -> None:
    """Run `cut_encoder` with the command line's arguments."""
    graph, frames, out = arguments
    cut_encoder(Path(graph), frames, Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])

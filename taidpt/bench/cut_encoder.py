"""A bundle's graph cut at its features: the bare encoder that `taidpt bench` compares with.

    python -m taidpt.bench.cut_encoder GRAPH FRAMES OUT

A process of its own, so that the runtime loads no onnx. FRAMES is the name of the graph's input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from taidpt.runtime.bundle.onnx_weights import check_external_data, data_name

__all__ = ["FEATURES", "cut_encoder", "main"]

FEATURES = ("global_features", "patch_features")


def cut_encoder(graph: Path, frames: str, out: Path) -> None:
    """Write the part of a graph that leads from the frames to its unit features.

    Args:
        graph: an ONNX file, its weights within or beside it.
        frames: name of its input.
        out: the file to write; weights lie beside it where they did before.
    Raises:
        BundleError: the graph is not readable, or its weights lie elsewhere.
        ValueError: it has no such input or features.
    """
    import onnx

    check_external_data(graph)
    extractor = onnx.utils.Extractor(onnx.load(graph))
    encoder = extractor.extract_model([frames], list(FEATURES))
    beside = graph.with_name(data_name(graph.name)).is_file()
    onnx.save(encoder, out, save_as_external_data=beside, location=data_name(out.name))


def main(arguments: list[str]) -> None:
    """Cut as the arguments say."""
    graph, frames, out = arguments
    cut_encoder(Path(graph), frames, Path(out))


if __name__ == "__main__":
    main(sys.argv[1:])

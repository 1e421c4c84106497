"""The table of docs/models.md: what a representative of every family costs and whether it agrees.

    python benchmarks/models.py [--threads 2] [--repeats 5] [--models A,B]

Random weights: parity and cost do not need trained ones, accuracy is not looked at. Of each model's
image tower, local branch included: parameters, GFLOPs (two a multiply-add, by PyTorch's
FlopCounterMode), least centred cosine between PyTorch and ONNX Runtime over the twelve generated
pictures (the measure of the export's parity gate), size of the fp32 graph, and the median time of
one frame in ONNX Runtime on the CPU. Every model runs in a process of its own; the rows are
printed as Markdown.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

MODELS = {
    "RN50": "ModifiedResNet",
    "RN101": "ModifiedResNet",
    "ViT-B-32": "ViT",
    "ViT-B-16": "ViT",
    "ViT-L-14": "ViT",
    "coca_ViT-B-32": "ViT, attentional pooling (CoCa)",
    "MobileCLIP2-S0": "FastViT (MobileCLIP)",
    "MobileCLIP-S1": "FastViT (MobileCLIP)",
    "MobileCLIP2-S3": "FastViT (MobileCLIP)",
    "MobileCLIP-B": "ViT behind convolutions (MobileCLIP)",
    "ViT-B-16-SigLIP": "SigLIP",
    "ViT-B-16-SigLIP2-256": "SigLIP",
    "convnext_base_w": "ConvNeXt",
    "swin_base_patch4_window7_224": "Swin",
    "ViTamin-S": "ViTamin",
    "EVA02-B-16": "EVA",
    "PE-Core-T-16-384": "Perception Encoder",
}
HEADER = """\
| family | model | pixels | patches | parameters, M | GFLOPs | parity | fp32 ONNX, MB | CPU, ms |
|---|---|---|---|---|---|---|---|---|"""


def measure(name: str, threads: int, repeats: int) -> dict[str, Any]:
    """One model's row."""
    import open_clip
    import torch

    from taidpt.encoders.local_branch import tower_encoder
    from taidpt.export.graph.encoder import (
        DEFAULT_OPSET,
        FrameEncoder,
        clean_encoder,
        write_encoder,
    )
    from taidpt.export.graph.onnx_files import RAW_GLOBAL, RAW_PATCHES, open_session, save_graph
    from taidpt.export.parity.centred_cosine import centred_cosines
    from taidpt.export.parity.reference_pictures import generated_pictures
    from taidpt.runtime.bundle.manifest import InputSpec
    from taidpt.runtime.preprocess.preprocessor import Preprocessor

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    model = open_clip.create_model(name, pretrained_hf=False)
    visual = model.visual.float().eval().requires_grad_(False)
    del model
    gc.collect()
    size = visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    colours = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    encoder = tower_encoder(visual, name)
    frame_encoder = FrameEncoder(encoder, InputSpec(height, width, *colours)).eval()
    preprocess = Preprocessor(InputSpec(height, width, *colours))
    frames = preprocess.batch([picture.pixels for picture in generated_pictures(height)])
    row = {
        "pixels": height,
        "grid": encoder.grid(height, width),
        "parameters": sum(value.numel() for value in visual.parameters()),
        "flops": _flops(frame_encoder, frames[:1]),
    }
    with torch.no_grad():
        parts = [frame_encoder(torch.from_numpy(frame[None])) for frame in frames]
    expected = [torch.cat(part).numpy() for part in zip(*parts, strict=True)]
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as folder:
        spec, path = InputSpec(height, width, *colours), Path(folder) / "model.onnx"
        exported = write_encoder(encoder, spec, DEFAULT_OPSET, Path(work))
        save_graph(clean_encoder(exported, spec), path, exported.parent)
        del encoder, frame_encoder, visual
        gc.collect()
        row["bytes"] = sum(file.stat().st_size for file in Path(folder).iterdir())
        session = open_session(path, threads)
    names = [RAW_GLOBAL, RAW_PATCHES]
    found, times = [], []
    for index, frame in enumerate([*frames, *[frames[0]] * repeats]):
        start = time.perf_counter()
        values = session.run(names, {"frames": frame[None]})
        if index < len(frames):
            found.append(values)
        else:
            times.append(time.perf_counter() - start)
    pairs = zip(expected, (np.concatenate(part) for part in zip(*found, strict=True)), strict=True)
    row["parity"] = min(float(centred_cosines(*pair).min()) for pair in pairs)
    row["seconds"] = statistics.median(times)
    return row


def _flops(module: Any, frames: np.ndarray[Any, Any]) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.from_numpy(frames))
    return int(counter.get_total_flops())


def row_line(name: str, row: dict[str, Any]) -> str:
    """The row as Markdown."""
    cells = [
        MODELS.get(name, "?"),
        name,
        str(row["pixels"]),
        f"{row['grid'][0]} × {row['grid'][1]}",
        f"{row['parameters'] / 1e6:.1f}",
        f"{row['flops'] / 1e9:.1f}",
        f"{row['parity']:.6f}",
        f"{row['bytes'] / 1e6:.0f}",
        f"{row['seconds'] * 1e3:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure the models one after the other and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.threads, given.repeats)))
        return
    print(HEADER, flush=True)
    own = [sys.executable, __file__, "--threads", str(given.threads)]
    for name in given.models.split(","):
        command = [*own, "--repeats", str(given.repeats), "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
            continue
        print(row_line(name, json.loads(done.stdout.splitlines()[-1])), flush=True)


if __name__ == "__main__":
    main()

"""Every precision of a few encoders: size, parity, layers in fp32, and mAP where it means much.

    python benchmarks/precisions.py [--models toyworld,RN50-quickgelu,…] [--precisions fp32,…]

`int8-cpu` is int8 as ONNX Runtime runs it (`--flavour cpu`), the others are for TensorRT.

`toyworld` is the embedded model with prompts tuned as in `taidpt demo`; its mAP is over the 522
held-out pictures. All others have random weights and random prompts, which tell pictures apart
by very little: their parity is a hard case, and says nothing about trained weights. FastViT's layer
scales are set to 1: at the 1e-5 that training begins with, its pictures differ by 0.0004 of a
feature's length, which is less than fp16 resolves. int8 and fp8
are calibrated on 128 frames of the demo video, which shares no scene with the held-out pictures.
bf16 cannot run on ONNX Runtime's CPU provider.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from taidpt.clip.model import load_clip
from taidpt.export.demo.run import DEMO_SETTINGS
from taidpt.export.exporter import ExportOptions, export_bundle, write_bundle
from taidpt.export.parity.graph_outputs import graph_outputs
from taidpt.export.parity.labelled_pictures import LabelledPictures
from taidpt.export.parity.reference_pictures import Picture
from taidpt.export.precision.cpu_bundle import write_cpu_bundle
from taidpt.export.precision.half import runs_literally
from taidpt.export.precision.request import EngineOptions, EngineRequest
from taidpt.export.precision.variant import add_precision
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime import Bundle
from taidpt.runtime.bundle.bundle import MODEL_FILE
from taidpt.runtime.errors import TaidptError
from taidpt.texts.tags import Tag
from taidpt.toyworld import assets
from taidpt.toyworld.assets import load_heldout
from taidpt.tuning.text_job import TuneJob, run_job

MODELS = "toyworld,RN50-quickgelu,ViT-B-32-quickgelu,MobileCLIP2-S0"
PRECISIONS = "fp32,fp16,bf16,int8,int8-cpu,fp8"
OUTPUTS = ("global_features", "patch_features", "scores")
_TAGS = 12


def toyworld_bundle(folder: Path) -> Path:
    """The demo's prompts, tuned with its settings, as a bundle."""
    prompts = folder / "toyworld.safetensors"
    job = TuneJob(
        tags=assets.path("tags.yaml"),
        texts=(assets.path("tuning_captions.txt"),),
        model="toyworld",
        pretrained="embedded",
        output=prompts,
        settings=DEMO_SETTINGS,
    )
    run_job(job, SilentProgress())
    return export_bundle(prompts, folder / "toyworld.taidpt").path


def random_bundle(folder: Path, model: str) -> Path:
    """A model of open_clip with random weights and random prompts; the check does not stop it."""
    clip = load_clip(model, "random")
    for name, scale in clip.model.named_parameters():
        if name.endswith("gamma") and "layer_scale" in name:
            torch.nn.init.ones_(scale)
    width = getattr(clip.model, "text", clip.model).token_embedding.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    contexts = {
        head: torch.randn(16, width, generator=generator) * 0.02 for head in ("global", "local")
    }
    tags = tuple(Tag(f"thing {index}") for index in range(_TAGS))
    prompts = TunedPrompts(contexts, tags, (), clip.identity())
    out = folder / f"{model}.taidpt"
    return write_bundle(prompts, clip, out, ExportOptions(force=True), SilentProgress()).path


def heldout(bundle: Bundle) -> LabelledPictures:
    """The toy world's held-out pictures, with labels in the order of the bundle's tags."""
    images, labels, names = load_heldout()
    columns = [names.index(name) for name in bundle.names]
    pictures = tuple(Picture(str(row), image) for row, image in enumerate(images))
    return LabelledPictures(pictures, labels[:, columns] == 1)


def measure(path: Path, precision: str, labelled: LabelledPictures | None) -> dict[str, Any]:
    """One row of the table."""
    for_cpu = precision == "int8-cpu"
    options = EngineOptions("int8", flavour="cpu") if for_cpu else EngineOptions(precision)
    request = EngineRequest(options, assets.path("demo.mp4"), force=True)
    try:
        if for_cpu:
            out = path.with_name(f"{path.stem}-cpu.taidpt")
            write_cpu_bundle(path, out, request, SilentProgress())
            bundle, file = Bundle.load(out), MODEL_FILE
            report = json.loads(bundle.file("parity.json").read_text("utf-8"))
        else:
            variant = add_precision(path, request, SilentProgress())
            bundle, file = variant.bundle, variant.file
            report = variant.parity or json.loads(bundle.file("parity.json").read_text("utf-8"))
    except TaidptError as error:
        return {"precision": precision, "refused": str(error)}
    notes = report.get("notes", {})
    row: dict[str, Any] = {
        "precision": precision,
        "megabytes": bundle.manifest.files[file].size / 1e6,
        "outputs": report["outputs"],
        "passed": report["passed"] and notes.get("verified", True),
        "layers": notes.get("layers"),
        "layers_in_fp32": notes.get("layers_in_fp32"),
        "calibration": notes.get("calibration"),
    }
    if labelled is not None and report["outputs"]:
        pixels = [picture.pixels for picture in labelled.pictures]
        graph, literal = bundle.file(file), runs_literally(options.precision, for_cpu)
        found = graph_outputs(graph, bundle.manifest.input, pixels, bundle.bank, literal)
        row["map"] = labelled.percent(found["scores"])
    return row


def line(model: str, row: dict[str, Any]) -> str:
    """A row as Markdown."""
    if "refused" in row:
        return f"| {model} | {row['precision']} | | {row['refused']} | | | | |"
    found = row["outputs"]
    cosines = [f"{found[n]['minimum']:.4f} ({found[n]['mean']:.4f})" for n in OUTPUTS if n in found]
    kept = "" if row["layers"] is None else f"{len(row['layers_in_fp32'])} of {row['layers']}"
    score = f"{row['map']:.2f}" if "map" in row else ""
    cells = [model, row["precision"], f"{row['megabytes']:.1f}", *(cosines or ["not run"] * 3)]
    return f"| {' | '.join([*cells, kept, score])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--precisions", default=PRECISIONS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"least (mean) centred cosine; onnxruntime {onnxruntime.__version__} on the CPU")
    print("| model | precision | MB | global | patches | scores | layers in fp32 | mAP |")
    print("|---|---|---|---|---|---|---|---|")
    rows: dict[str, list[dict[str, Any]]] = {}
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as name:
            trained = model == "toyworld"
            path = toyworld_bundle(Path(name)) if trained else random_bundle(Path(name), model)
            labelled = heldout(Bundle.load(path)) if trained else None
            rows[model] = []
            for precision in options.precisions.split(","):
                rows[model].append(measure(path, precision, labelled))
                print(line(model, rows[model][-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

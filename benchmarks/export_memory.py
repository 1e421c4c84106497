"""How much memory an export takes: its peak against the fp32 weights of the exported tower.

    python benchmarks/export_memory.py [--model ViT-L-14] [--file] [--stages]

Loads the model (random weights; `--file` writes them to a safetensors file first, in a process of
its own, and loads that), bakes three tags, exports a bundle with its parity gate, and prints the
peak of resident memory (VmHWM) above what stands after `import torch, open_clip`. Target: under
2.5 times the weights of the image tower.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = 2.5
_MB = 1e6


def _status(field: str) -> float:
    """A line of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / _MB
    raise LookupError(field)


def make_inputs(model: str, folder: Path, file: bool) -> None:
    """Prompts of random contexts, and the weight file when one is wanted."""
    import torch
    from safetensors.torch import save_file

    from taidpt.clip.model import load_clip
    from taidpt.prompts.prompts_file import TunedPrompts
    from taidpt.texts.tags import Tag

    clip = load_clip(model, "random")
    if file:
        weights = folder / "weights.safetensors"
        save_file(dict(clip.model.state_dict()), weights)
        clip = load_clip(model, str(weights))
    width = getattr(clip.model, "text", clip.model).token_embedding.weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    contexts = {head: torch.randn(16, width, generator=generator) for head in ("global", "local")}
    tags = tuple(Tag(name) for name in ("dog", "car", "umbrella"))
    TunedPrompts(contexts, tags, (), clip.identity()).save(folder / "street.safetensors")


def measure(folder: Path, stages: bool) -> None:
    """Export in this process and print both sides."""
    import open_clip  # noqa: F401
    import torch

    before = _status("VmRSS")
    from taidpt.export.exporter import export_bundle
    from taidpt.progress import SilentProgress

    class Stages(SilentProgress):
        def start(self, label: str, total: int) -> None:
            if stages:
                print(f"  {label}: {_status('VmHWM') - before:.0f} MB so far", flush=True)

    result = export_bundle(folder / "street.safetensors", folder / "street.taidpt", None, Stages())
    peak = _status("VmHWM") - before
    import onnx

    model = onnx.load(result.path / "model.onnx", load_external_data=False)
    weights = 0.0
    for tensor in model.graph.initializer:
        count = 1
        for size in tensor.dims:
            count *= size
        weights += 4 * count / _MB
    print(f"torch {torch.__version__}, parity {result.parity.head('scores').minimum:.6f}")
    print(f"fp32 weights in the graph {weights:.0f} MB; peak above the imports {peak:.0f} MB")
    ratio = peak / weights
    print(f"{ratio:.2f} times; target {TARGET}: {'held' if ratio < TARGET else 'MISSED'}")


def main() -> None:
    """Make the inputs in one process, export in another."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="ViT-L-14")
    parser.add_argument("--file", action="store_true", help="weights from a safetensors file")
    parser.add_argument("--stages", action="store_true", help="the peak at each stage, too")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        measure(given.folder, given.stages)
        return
    with tempfile.TemporaryDirectory() as folder:
        code = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
            "from export_memory import make_inputs; "
            "make_inputs(sys.argv[2], Path(sys.argv[3]), sys.argv[4] == 'True')"
        )
        here = str(Path(__file__).parent)
        made = [sys.executable, "-c", code, here, given.model, folder, str(given.file)]
        subprocess.run(made, check=True)
        own = [sys.executable, __file__, "--folder", folder]
        subprocess.run([*own, *(["--stages"] if given.stages else [])], check=True)


if __name__ == "__main__":
    main()

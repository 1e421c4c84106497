"""`ARCHITECTURE…`: compile the kernels for GPUs that are not here, print what came of it as JSON.

A process of its own, since an interpreter test may have turned this one's Triton into one. Each
answer is {"what", "architecture", "shared_bytes", "spilled_bytes", "buffers"}: the spilled ones as
ptxas reports them, the last as `buffers` below returns them.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from taidpt.kernels.local_similarity.tiles import (
    GradientTiles,
    Shape,
    Tiles,
    ahead_of_time,
    choose,
    gradient_tiles,
    reads_again,
)
from taidpt.kernels.local_similarity.triton_competing import (
    Blocks,
    best_patch_kernel,
    patch_total_kernel,
)
from taidpt.kernels.local_similarity.triton_forward import forward_kernel
from taidpt.kernels.local_similarity.triton_gradient import gradient_kernel, inverse_length_kernel
from taidpt.kernels.local_similarity.triton_tile import combine_kernel

# optional parts of a forward launch and their pointers: left out, these are no parameters
PARTS = {
    "mask": ("mask_ptr",),
    "values": ("value_ptr",),
    "log_sum": ("log_sum_ptr",),
    "best": ("best_ptr",),
    "global": ("global_ptr",),
    "affine": ("scale_ptr", "bias_ptr"),
}
KINDS = {"mask_ptr": "*u8", "best_ptr": "*i32", "best_part_ptr": "*i32"}
HALVES = ("x_ptr", "bank_ptr", "value_ptr", "to_rows_ptr")
PTXAS = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "ptxas"

# the shapes of the GPU suite's targets, and pictures of 7 x 7 and 28 x 28 patches
SHAPES = {
    "P256": (Shape(64, 256, 20000, 1024), ()),
    "P196": (Shape(64, 196, 20000, 1024), ()),
    "tuning": (Shape(512, 20, 5000, 512), ("mask", "log_sum")),
    "P49": (Shape(8, 49, 4585, 1024), ()),
    "P784": (Shape(8, 784, 1000, 512), ()),
    "one picture": (Shape(1, 196, 20000, 1024), ()),
}


def kind(name: str) -> str:
    """A parameter's type in Triton's words."""
    if name in HALVES:
        return "*bf16"
    if name.endswith("_ptr"):
        return KINDS.get(name, "*fp32")
    return "fp32" if name in ("temperature", "merge_weight") else "i32"


def compiled(kernel: Any, architecture: int, constants: dict[str, Any], tiles: Any) -> Any:
    """Triton's compiled kernel; pointers that are left out are constants."""
    names = list(inspect.signature(kernel.fn).parameters)
    signature = {name: "constexpr" if name in constants else kind(name) for name in names}
    aligned = [
        name for name in names if name.endswith("_ptr") or name.startswith("stride") or name == "D"
    ]
    attributes = {
        (names.index(name),): [["tt.divisibility", 16]] for name in aligned if name not in constants
    }
    indexed = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, indexed, attributes)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def forward(architecture: int, tiles: Tiles, on: tuple[str, ...], patches: int) -> Any:
    """The forward kernel with these tiles and parts."""
    constants: dict[str, Any] = {
        name: None for part, names in PARTS.items() if part not in on for name in names
    }
    constants |= {
        "HAS_MASK": "mask" in on,
        "HAS_VALUES": "values" in on,
        "IMAGES": tiles.images,
        "BLOCK_C": tiles.block_c,
        "BLOCK_P": tiles.block_p,
        "BLOCK_D": tiles.block_d,
        "TAIL_1": tiles.tails[0],
        "TAIL_2": tiles.tails[1],
        "SPLITS": tiles.splits,
        "GROUP": tiles.group,
        "EVEN_D": True,
        "EVEN_P": tiles.tails != (0, 0) or patches % tiles.block_p == 0,
        "FUSE_LENGTH": tiles.fuse_length,
        "READ_AGAIN": reads_again(architecture, tiles),
        "JOINED_SUMS": True,
        "DTYPE": tl.bfloat16,
        "PRECISION": "ieee",
    }
    return compiled(forward_kernel, architecture, constants, tiles)


def gradient(architecture: int, tiles: GradientTiles | None = None) -> Any:
    """The backward pass's kernel with these tiles, by default the table's."""
    tiles = tiles or gradient_tiles(architecture, 2)
    constants = {
        "BLOCK_R": tiles.block_r,
        "BLOCK_C": tiles.block_c,
        "BLOCK_D": tiles.block_d,
        "GROUP": tiles.group,
        "EVEN_D": True,
        "grad_scale_ptr": None,
        "EVEN_C": True,
        "stride_grad_class": 1,
        "DTYPE": tl.bfloat16,
        "PRECISION": "ieee",
    }
    return compiled(gradient_kernel, architecture, constants, tiles)


def competing(architecture: int, kernel: Any) -> Any:
    """A kernel of the second read-out with its own blocks."""
    blocks = Blocks()
    constants = {
        "BLOCK_C": blocks.classes,
        "BLOCK_P": blocks.patches,
        "BLOCK_D": blocks.dim,
        "EVEN_D": True,
        "DTYPE": tl.bfloat16,
        "PRECISION": "ieee",
    }
    return compiled(kernel, architecture, constants, blocks)


def spilled_bytes(kernel: Any) -> int:
    """Bytes of registers that a thread puts aside, by ptxas."""
    ptx = kernel.asm["ptx"]
    target = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        report = subprocess.run(
            [PTXAS, "-v", f"-arch={target.group(1)}", path, "-o", Path(folder) / "kernel.cubin"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
    found = re.search(r"(\d+) bytes spill stores", report)
    assert found is not None, report
    return int(found.group(1))


def buffers(kernel: Any) -> list[list[int]]:
    """Stages, and the buffers of each operand of an asynchronous product out of shared memory.

    With fewer buffers than stages a copy overwrites what a product still reads. Operands without
    stages, which a product waits for, are left out.
    """
    sources: dict[str, tuple[str, str]] = {}
    operands: set[str] = set()
    for line in kernel.asm["ttgir"].splitlines():
        made = re.match(r"\s*(%\S+) = ttg\.(local_alloc|memdesc_\w+)\b(.*)", line)
        if made:
            used = re.search(r"%[^\s\[,]+", made[3])
            source = "" if made[2] == "local_alloc" or used is None else used[0]
            sources[made[1]] = source, line
        product = re.search(r"warp_group_dot (%\S+), (%\S+),.*isAsync = true", line)
        operands.update(product.groups() if product else ())

    def allocation(name: str) -> str:
        source, line = sources.get(name, ("", ""))
        return allocation(source) if source else line

    shapes = [re.search(r"-> !ttg\.memdesc<((?:\d+x)+)", allocation(name)) for name in operands]
    sizes = [shape[1].split("x")[:-1] for shape in shapes if shape]
    return [[kernel.metadata.num_stages, int(size[0])] for size in sizes if len(size) == 3]


def answers(architecture: int) -> list[dict[str, Any]]:
    """The table's choices, then every part at once with and without splits."""
    kernels = {
        what: forward(architecture, choose(architecture, shape), on, shape.patches)
        for what, (shape, on) in SHAPES.items()
    }
    for of in ("wide", "narrow"):
        kernels[f"ahead of time, {of}"] = forward(
            architecture, ahead_of_time(architecture, 2, of), ("mask",), 50
        )
    kernels["gradient"] = gradient(architecture)
    small = Tiles(32, 2, 32, 32, warps=8, stages=2, tails=(16, 0), fuse_length=True)
    split = Tiles(32, 1, 32, 32, warps=8, stages=2, splits=2, fuse_length=True)
    kernels["every part"] = forward(architecture, small, tuple(PARTS), 40)
    kernels["every part, splits"] = forward(architecture, split, tuple(PARTS), 40)
    kernels["combine"] = compiled(combine_kernel, architecture, {"SPLITS": 2, "BLOCK": 128}, split)
    kernels["lengths"] = compiled(inverse_length_kernel, architecture, {"BLOCK_D": 1024}, split)
    kernels["totals"] = competing(architecture, patch_total_kernel)
    kernels["best patch"] = competing(architecture, best_patch_kernel)
    return [
        {
            "what": what,
            "architecture": architecture,
            "shared_bytes": kernel.metadata.shared,
            "spilled_bytes": spilled_bytes(kernel),
            "buffers": buffers(kernel),
        }
        for what, kernel in kernels.items()
    ]


if __name__ == "__main__":
    print(json.dumps([each for given in sys.argv[1:] for each in answers(int(given))]))

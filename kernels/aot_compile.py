"""Compile the kernels of both read-outs for one architecture; run by aot.py, one process each."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FALLBACK_ARCHITECTURE", "KINDS", "PARAMETERS", "PTX_VERSION", "compile_target"]

# What the kernels take, in order. Two pointers that Triton keeps for itself follow (null).
_FORWARD = {
    "x_ptr": "pointer",
    "bank_ptr": "pointer",
    "value_ptr": "pointer",
    "mask_ptr": "*u8",
    "out_ptr": "*fp32",
    "stride_image": "i32",
    "stride_patch": "i32",
    "stride_bank": "i32",
    "stride_value": "i32",
    "use_mask": "i32",
    "B": "i32",
    "P": "i32",
    "C": "i32",
    "D": "i32",
    "temperature": "fp32",
}
_ROWS = {"x_ptr": "pointer", "bank_ptr": "pointer"}
_STATE = {"inverse_ptr": "*fp32", "total_ptr": "*fp32"}
_STRIDES = {"stride_image": "i32", "stride_patch": "i32", "stride_bank": "i32"}
_SIZES = {"P": "i32", "C": "i32", "D": "i32", "temperature": "fp32"}
_BEST = {"mask_ptr": "*u8", **_STATE, "out_ptr": "*fp32", **_STRIDES, "use_mask": "i32"}
# "wide" and "narrow" want D a multiple of 64, packed rows on 16-byte addresses, and no values.
# "totals" and "best" are the second read-out's two kernels, for any D and addresses.
PARAMETERS = {
    "wide": _FORWARD,
    "narrow": _FORWARD,
    "general": _FORWARD,
    "totals": {**_ROWS, **_STATE, **_STRIDES, **_SIZES},
    "best": {**_ROWS, **_BEST, **_SIZES},
}
KINDS = tuple(PARAMETERS)
_ALIGNED = ("x_ptr", "bank_ptr", "stride_image", "stride_patch", "stride_bank", "D")
TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
# The first architecture whose tensor cores multiply bf16.
_BF16_ARCHITECTURE = 80
# The driver compiles this PTX for architectures newer than sm_80; JetPack 6 accepts ISA up to 8.5.
FALLBACK_ARCHITECTURE = 80
PTX_VERSION = 80


class _Variant(NamedTuple):
    architecture: int
    dtype: str
    kind: str
    ptx: bool

    @property
    def stem(self) -> str:
        where = "ptx" if self.ptx else f"sm{self.architecture}"
        return f"local_similarity_{where}_{self.dtype}_{self.kind}"


def compile_target(target: str, folder: Path) -> list[dict[str, Any]]:
    """Write each variant's cubin (or, for target "ptx", PTX); facts of each."""
    is_ptx = target == "ptx"
    architecture = FALLBACK_ARCHITECTURE if is_ptx else int(target)
    return [
        _compile(_Variant(architecture, dtype, kind, is_ptx), folder)
        for dtype in TYPES
        for kind in KINDS
        if dtype != "bf16" or architecture >= _BF16_ARCHITECTURE
    ]


class _Recipe(NamedTuple):
    """A kernel with everything that is fixed at compile time.

    `block` and `images` say how many rows (classes, of "totals" patches) and images a block takes.
    """

    kernel: Any
    constants: dict[str, Any]
    block: int
    images: int
    warps: int
    stages: int


def _compile(variant: _Variant, folder: Path) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    is_competing = variant.kind in ("totals", "best")
    recipe = _competing_recipe(variant) if is_competing else _forward_recipe(variant)
    names = list(inspect.signature(recipe.kernel.fn).parameters)
    signature = {name: _signature(name, variant, recipe.constants) for name in names}
    aligned = _ALIGNED if variant.kind in ("wide", "narrow") else ()
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    indexed = {(names.index(name),): value for name, value in recipe.constants.items()}
    source = ASTSource(recipe.kernel, signature, indexed, attributes)
    options: dict[str, Any] = {
        "num_warps": recipe.warps,
        "num_stages": recipe.stages,
        "enable_fp_fusion": True,
    }
    if variant.ptx:
        options["ptx_version"] = PTX_VERSION
    target = GPUTarget("cuda", variant.architecture, 32)
    compiled = triton.compile(source, target=target, options=options)
    suffix = "ptx" if variant.ptx else "cubin"
    image = compiled.asm[suffix]
    data = image.encode() if isinstance(image, str) else image
    (folder / f"{variant.stem}.{suffix}").write_bytes(data)
    ptx = compiled.asm["ptx"]
    return {
        "architecture": variant.architecture,
        "ptx": variant.ptx,
        "ptx_version": int("".join(re.findall(r"\.version (\d+)\.(\d+)", ptx)[0])),
        "type": variant.dtype,
        "kind": variant.kind,
        "file": f"{variant.stem}.{suffix}",
        "bytes": len(data),
        "entry": compiled.metadata.name,
        "threads": 32 * recipe.warps,
        "shared_bytes": compiled.metadata.shared,
        "block": recipe.block,
        "images": recipe.images,
        "parameters": _parameter_count(ptx, compiled.metadata.name),
    }


def _forward_recipe(variant: _Variant) -> _Recipe:
    """No epilogue, one split, a mask by its flag."""
    from taidpt.kernels.local_similarity.tiles import ahead_of_time, reads_again
    from taidpt.kernels.local_similarity.triton_forward import forward_kernel

    tiles = ahead_of_time(variant.architecture, 4 if variant.dtype == "f32" else 2, variant.kind)
    left_out = ("inverse", "log_sum", "best", "part", "global", "scale", "bias")
    constants = {
        **{f"{name}_ptr": None for name in left_out},
        "merge_weight": 1.0,
        "IMAGES": tiles.images,
        "BLOCK_C": tiles.block_c,
        "BLOCK_P": tiles.block_p,
        "BLOCK_D": tiles.block_d,
        "TAIL_1": 0,
        "TAIL_2": 0,
        "SPLITS": 1,
        "GROUP": tiles.group,
        "EVEN_D": variant.kind != "general",
        "EVEN_P": False,
        "HAS_MASK": True,
        "HAS_VALUES": variant.kind == "general",
        "FUSE_LENGTH": tiles.fuse_length,
        "READ_AGAIN": reads_again(variant.architecture, tiles),
        "JOINED_SUMS": True,
        **_products(variant),
    }
    return _Recipe(
        forward_kernel, constants, tiles.block_c, tiles.images, tiles.warps, tiles.stages
    )


def _competing_recipe(variant: _Variant) -> _Recipe:
    """A kernel of the second read-out in its usual blocks; an image a block."""
    from taidpt.kernels.local_similarity import triton_competing

    blocks = triton_competing.Blocks()
    constants = {
        "BLOCK_C": blocks.classes,
        "BLOCK_P": blocks.patches,
        "BLOCK_D": blocks.dim,
        "EVEN_D": False,
        **_products(variant),
    }
    if variant.kind == "totals":
        kernel, rows = triton_competing.patch_total_kernel, blocks.patches
    else:
        kernel, rows = triton_competing.best_patch_kernel, blocks.classes
    return _Recipe(kernel, constants, rows, 1, blocks.warps, blocks.stages)


def _products(variant: _Variant) -> dict[str, Any]:
    import triton.language as tl

    tf32 = variant.dtype == "f32" and variant.architecture >= 80
    return {
        "DTYPE": {"f32": tl.float32, "f16": tl.float16, "bf16": tl.bfloat16}[variant.dtype],
        "PRECISION": "tf32x3" if tf32 else "ieee",
    }


def _signature(name: str, variant: _Variant, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    declared = PARAMETERS[variant.kind][name]
    return f"*{TYPES[variant.dtype]}" if declared == "pointer" else declared


def _parameter_count(ptx: str, entry: str) -> int:
    """Parameters that the entry really takes, hidden ones included."""
    head = re.search(rf"\.entry {re.escape(entry)}\((.*?)\)", ptx, re.DOTALL)
    if head is None:
        raise RuntimeError(f"no entry {entry} in the PTX")
    return head.group(1).count(".param")


def main() -> None:
    """`aot_compile TARGET FOLDER`; facts as one line of JSON."""
    print(json.dumps(compile_target(sys.argv[1], Path(sys.argv[2]))))


if __name__ == "__main__":
    main()

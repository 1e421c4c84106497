"""Compile the forward kernel's variants for one architecture; run by aot.py, one process each."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FALLBACK_ARCHITECTURE", "KINDS", "PARAMETERS", "PTX_VERSION", "compile_target"]

# What every variant takes, in order. Two pointers that Triton keeps for itself follow (null).
PARAMETERS = {
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
# "wide" and "narrow" want D a multiple of 64, packed rows on 16-byte addresses, and no values.
KINDS = ("wide", "narrow", "general")
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


def _compile(variant: _Variant, folder: Path) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from taidpt.kernels.local_similarity.tiles import ahead_of_time
    from taidpt.kernels.local_similarity.triton_forward import forward_kernel

    tiles = ahead_of_time(variant.architecture, 4 if variant.dtype == "f32" else 2, variant.kind)
    names = list(inspect.signature(forward_kernel.fn).parameters)
    constants = _constants(variant, tiles)
    signature = {name: _signature(name, variant.dtype, constants) for name in names}
    aligned = () if variant.kind == "general" else _ALIGNED
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    indexed = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(forward_kernel, signature, indexed, attributes)
    options: dict[str, Any] = {
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
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
        "threads": 32 * tiles.warps,
        "shared_bytes": compiled.metadata.shared,
        "block_c": tiles.block_c,
        "images": tiles.images,
        "parameters": _parameter_count(ptx, compiled.metadata.name),
    }


def _constants(variant: _Variant, tiles: Any) -> dict[str, Any]:
    """Everything that is fixed at compile time: no epilogue, one split, a mask by its flag."""
    import triton.language as tl

    from taidpt.kernels.local_similarity.tiles import reads_again

    left_out = ("inverse", "log_sum", "best", "part", "global", "scale", "bias")
    precision = "tf32x3" if variant.dtype == "f32" and variant.architecture >= 80 else "ieee"
    return {
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
        "DTYPE": {"f32": tl.float32, "f16": tl.float16, "bf16": tl.bfloat16}[variant.dtype],
        "PRECISION": precision,
    }


def _signature(name: str, dtype: str, constants: dict[str, Any]) -> str:
    if name in constants:
        return "constexpr"
    declared = PARAMETERS[name]
    return f"*{TYPES[dtype]}" if declared == "pointer" else declared


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

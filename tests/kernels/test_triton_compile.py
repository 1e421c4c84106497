"""Every kernel and option compiles for a real GPU, which the interpreter does not show."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

from tests.support import REPOSITORY, require

# In a process of its own: an interpreter test may have turned this one's Triton into one.
PROGRAM = """
import inspect, json, sys
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from taidpt.kernels.local_similarity import triton_gradient as gradient
from taidpt.kernels.local_similarity import triton_kernels as forward

def shared(kernel, architecture, constants, dtype="bf16"):
    names = list(inspect.signature(kernel.fn).parameters)
    kinds = {"mask_ptr": "*u8", "best_ptr": "*i32", "best_part_ptr": "*i32"}
    def kind(name):
        if name in constants:
            return "constexpr"
        if name in ("x_ptr", "bank_ptr", "value_ptr", "to_rows_ptr"):
            return "*" + dtype
        if name.endswith("_ptr"):
            return kinds.get(name, "*fp32")
        return "fp32" if name in ("temperature", "merge_weight") else "i32"
    signature = {name: kind(name) for name in names}
    indexed = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, signature, indexed, {})
    target = GPUTarget("cuda", architecture, 32)
    options = {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}
    return triton.compile(source, target=target, options=options).metadata.shared

flags = ("MASK", "VALUES", "LOG_SUM", "BEST", "GLOBAL", "AFFINE")
found = []
for architecture in map(int, sys.argv[1:]):
    for splits, on in ((1, True), (2, True), (1, False)):
        found.append(shared(forward.forward_kernel, architecture, {
            "IMAGES": 1 if splits > 1 else 2, "BLOCK_C": 32, "BLOCK_P": 32, "BLOCK_D": 32,
            "TAIL_1": 0 if splits > 1 else 16, "TAIL_2": 0, "SPLITS": splits, "GROUP": 4,
            "EVEN_D": not on, "FUSE_LENGTH": on, "DTYPE": tl.bfloat16, "PRECISION": "ieee",
            **{f"HAS_{flag}": on for flag in flags},
        }))
    found.append(shared(forward.combine_kernel, architecture, {
        "SPLITS": 2, "BLOCK": 128, **{f"HAS_{flag}": True for flag in flags[2:]}}))
    found.append(shared(gradient.inverse_length_kernel, architecture, {"BLOCK_D": 1024}))
    found.append(shared(gradient.gradient_kernel, architecture, {
        "BLOCK_R": 128, "BLOCK_C": 128, "BLOCK_D": 32, "GROUP": 8, "EVEN_D": True,
        "HAS_MASK": True, "DTYPE": tl.bfloat16, "PRECISION": "ieee"}))
print(json.dumps(found))
"""


def test_every_kernel_compiles_for_ampere_and_hopper() -> None:
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "80", "90"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shared = json.loads(done.stdout.splitlines()[-1])
    assert len(shared) == 12
    assert max(shared) <= 163 * 1024

"""The C library's way to a GPU, beside a stub driver: which kernel, which grid, which arguments.

The stub reads arguments with the sizes that the compiled kernel itself declares, so a missing,
exchanged or shortened one shows. Nothing is computed.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from taidpt.kernels.aot_compile import KINDS, PARAMETERS
from tests.kernels.native_build import (
    aot_folder,
    architectures,
    build_native,
    build_stub_driver,
    run_cmake,
)
from tests.support import REPOSITORY

OK, UNSUPPORTED, CUDA_FAILED = 0, 2, 3
F32, F16, BF16 = 0, 1, 2
CURRENT = -2
NAMES = {F32: "f32", F16: "f16", BF16: "bf16"}
# addresses that nothing reads; all on 16 bytes
PLACES = {"patches": 0x10000, "class_embeddings": 0x20000, "similarities": 0x50000}
SIZES = {"batch": 2, "patch_count": 49, "class_count": 81, "dim": 512}


def facts() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((aot_folder() / "kernels.json").read_text())
    return listed


def fact_of(dtype: int, kind: str) -> dict[str, Any]:
    """The cubin of a type and kind for sm_87."""
    key = 87, NAMES[dtype], kind, False
    names = "architecture", "type", "kind", "ptx"
    (fact,) = [fact for fact in facts() if tuple(fact[name] for name in names) == key]
    return fact


@cache
def declared_sizes(kind: str = "general") -> tuple[int, ...]:
    """Bytes of each argument by the PTX of a kind of kernel, the same for every type."""
    found = set()
    for path in aot_folder().glob(f"*_{kind}.ptx"):
        head = re.search(r"\.entry \w+\((.*?)\)", path.read_text(), re.DOTALL)
        assert head is not None
        bits = re.findall(r"\.param \.[a-z](\d+)", head.group(1))
        found.add(tuple(int(each) // 8 for each in bits))
    assert len(found) == 1, found
    return found.pop()


def sizes_of(*kinds: str) -> str:
    """What the stub is told of the launches of a call."""
    return ";".join(",".join(map(str, declared_sizes(kind))) for kind in kinds)


def call(dtype: int = F16, device: int = CURRENT, **changed: Any) -> dict[str, Any]:
    given = {**PLACES, **SIZES, "temperature": 40.0, "dtype": dtype, "device": device}
    return {"environment": {}, "arguments": {**given, **changed}}


def on(call: dict[str, Any], **environment: object) -> dict[str, Any]:
    named = {f"TAIDPT_STUB_{name.upper()}": str(value) for name, value in environment.items()}
    return {**call, "environment": named}


def answers(
    *calls: dict[str, Any], driver: Path | None = None, library: Path | None = None
) -> list[dict[str, Any]]:
    """What the library returned and what the driver saw, in a process of their own."""
    library = library or build_native() / "libtaidpt.so"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver or build_stub_driver()),
        "TAIDPT_STUB_SIZES": sizes_of("general"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.stub_launches", str(library)],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def digest(data: bytes) -> str:
    """FNV-1a, as the stub has it."""
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return f"{len(data)} {value}"


def loaded(answer: dict[str, Any]) -> dict[str, Any]:
    """The kernel whose image the driver was given."""
    (line,) = [line for line in answer["driver"] if line.startswith("load ")]
    digests = {digest((aot_folder() / fact["file"]).read_bytes()): fact for fact in facts()}
    return digests[line.removeprefix("load ")]


def launch_of(answer: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Launch facts (grid, block, shared memory, stream, extra) and raw arguments."""
    assert answer["status"] == OK, answer["message"]
    numbers = [int(part) for part in answer["driver"][-1].removeprefix("launch ").split()]
    return numbers[:9], numbers[9:]


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_parameters_match_the_header(kind: str) -> None:
    """The order of arguments is that of the Triton kernel; two hidden pointers follow."""
    from taidpt.kernels.local_similarity.triton_competing import (
        best_patch_kernel,
        patch_total_kernel,
    )
    from taidpt.kernels.local_similarity.triton_forward import forward_kernel

    kernels = {"totals": patch_total_kernel, "best": best_patch_kernel}
    names = list(inspect.signature(kernels.get(kind, forward_kernel).fn).parameters)
    declared = PARAMETERS[kind]
    assert [name for name in names if name in declared] == list(declared)
    sizes = [{"i32": 4, "fp32": 4}.get(form, 8) for form in declared.values()]
    assert declared_sizes(kind) == (*sizes, 8, 8)


def test_arguments_are_passed_in_the_kernels_order() -> None:
    full = call(values=0x30000, mask=0x40000, stream=0x60000, temperature=12.5)
    plain = call()
    (facts_full, given), (facts_plain, bare) = map(launch_of, answers(full, plain))
    expected = {
        "x_ptr": 0x10000,
        "bank_ptr": 0x20000,
        "value_ptr": 0x30000,
        "mask_ptr": 0x40000,
        "out_ptr": 0x50000,
        "stride_image": 49 * 512,
        "stride_patch": 512,
        "stride_bank": 512,
        "stride_value": 512,
        "use_mask": 1,
        "B": 2,
        "P": 49,
        "C": 81,
        "D": 512,
        "temperature": struct.unpack("<I", struct.pack("<f", 12.5))[0],
    }
    assert list(expected) == list(PARAMETERS["general"])
    assert given == [*expected.values(), 0, 0]
    assert facts_full[7:] == [0x60000, 0]
    # no mask and no values: the flag says so, and the bank stands in for V
    where = list(PARAMETERS["general"])
    assert bare[where.index("use_mask")] == 0
    assert bare[where.index("mask_ptr")] == 0
    assert bare[where.index("value_ptr")] == 0x20000
    assert facts_plain[7:] == [0, 0]


CHOICES = [
    ("narrow", {}),
    ("wide", {"batch": 64, "class_count": 1000}),
    ("general", {"dim": 72}),
    ("general", {"values": 0x30000}),
    ("general", {"patches": 0x10008}),
    ("general", {"class_embeddings": 0x20004}),
]


@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_kernel_grid_and_shared_memory(dtype: int) -> None:
    calls = [call(dtype, **changed) for _, changed in CHOICES]
    for (kind, _), made, answer in zip(CHOICES, calls, answers(*calls), strict=True):
        fact = fact_of(dtype, kind)
        numbers, _ = launch_of(answer)
        arguments = made["arguments"]
        blocks = -(-arguments["class_count"] // fact["block"])
        blocks *= -(-arguments["batch"] // fact["images"])
        assert numbers[:7] == [blocks, 1, 1, fact["threads"], 1, 1, fact["shared_bytes"]]
        if "load" in answer["driver"][0]:
            assert loaded(answer) == fact
            assert answer["driver"][1] == f"function {fact['entry']}"
            asked = [line for line in answer["driver"] if line.startswith("attribute ")]
            # more than 48 KiB of dynamic shared memory must be asked for: attribute 8
            large = fact["shared_bytes"] > 48 * 1024
            assert asked == ([f"attribute 8 {fact['shared_bytes']}"] if large else [])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_the_second_read_out_is_two_launches(dtype: int, masked: bool) -> None:
    """The first writes lengths and totals into the workspace, the second reads them."""
    changed = {"mask": 0x40000} if masked else {}
    made = {**call(dtype, stream=0x60000, temperature=12.5, **changed), "workspace": 0x70000}
    (answer,) = answers(on(made, sizes=sizes_of("totals", "best")))
    assert answer["status"] == OK, answer["message"]
    launches = [
        [int(part) for part in line.removeprefix("launch ").split()]
        for line in answer["driver"]
        if line.startswith("launch ")
    ]
    state = {"inverse_ptr": 0x70000, "total_ptr": 0x70000 + 4 * 2 * 49}
    rows = {"x_ptr": 0x10000, "bank_ptr": 0x20000}
    strides = {"stride_image": 49 * 512, "stride_patch": 512, "stride_bank": 512}
    temperature = struct.unpack("<I", struct.pack("<f", 12.5))[0]
    sizes = {"P": 49, "C": 81, "D": 512, "temperature": temperature}
    mask = {"mask_ptr": 0x40000 if masked else 0}
    expected = {
        "totals": {**rows, **state, **strides, **sizes},
        "best": {
            **rows,
            **mask,
            **state,
            "out_ptr": 0x50000,
            **strides,
            "use_mask": masked,
            **sizes,
        },
    }
    for (kind, arguments), launched, walked in zip(
        expected.items(), launches, (49, 81), strict=True
    ):
        assert list(arguments) == list(PARAMETERS[kind])
        fact = fact_of(dtype, kind)
        grid = [-(-walked // fact["block"]), 2, 1]
        assert launched[:7] == [*grid, fact["threads"], 1, 1, fact["shared_bytes"]]
        assert launched[7:9] == [0x60000, 0]
        assert launched[9:] == [*arguments.values(), 0, 0]


def test_the_second_read_out_refuses_what_it_cannot_use() -> None:
    given = [
        ({"values": 0x30000}, 0x70000, "no values"),
        ({}, None, "needs a workspace"),
        ({"batch": 70_000}, 0x70000, "at most 65535 images"),
    ]
    calls = [{**call(**changed), "workspace": workspace} for changed, workspace, _ in given]
    for answer, (_, _, message) in zip(answers(*calls), given, strict=True):
        assert answer["status"] == 1
        assert message in answer["message"]
        assert answer["driver"] == []


def test_some_kernel_exceeds_the_default_shared_memory() -> None:
    """Else the test above would never see it asked for."""
    assert any(fact["shared_bytes"] > 48 * 1024 for fact in facts() if not fact["ptx"])


@pytest.mark.parametrize("architecture", [86, 101, 121])
def test_unknown_architecture_uses_the_ptx(architecture: int) -> None:
    (answer,) = answers(on(call(BF16), arch=architecture))
    assert answer["status"] == OK
    assert (loaded(answer)["ptx"], loaded(answer)["type"]) == (True, "bf16")


def test_old_architecture_gives_unsupported_before_any_launch() -> None:
    half, wide = answers(on(call(F16), arch=70), on({"prepare": CURRENT}, arch=70))
    built = ", ".join(architectures())
    for answer, dtype in ((half, "fp16"), (wide, "fp32")):
        assert answer["status"] == UNSUPPORTED
        assert answer["driver"] == []
        assert (
            f"no {dtype} kernel for sm_70: this build has {built}, and PTX for sm_80 and newer"
        ) in answer["message"]


def test_kernel_is_loaded_once_or_by_prepare() -> None:
    first, again, prepared, after = answers(
        call(), call(), {"environment": {}, "prepare": 0}, call(F32, device=0, dim=72)
    )
    assert first["driver"][0].startswith("load ")
    assert [line.split()[0] for line in again["driver"]] == ["launch"]
    # device 0 has a context of its own, for which all kinds of each type are loaded
    assert sum(line.startswith("load ") for line in prepared["driver"]) == 3 * len(KINDS)
    assert [line.split()[0] for line in after["driver"]] == ["launch"]
    assert (prepared["pushed"], after["pushed"]) == (0, 0)


REFUSALS = [
    ("cuModuleLoadData", ["load"]),
    ("cuModuleGetFunction", ["load", "function"]),
    ("cuFuncSetAttribute", ["load", "function", "attribute"]),
]


def test_driver_errors_name_the_call() -> None:
    wide = {"batch": 64, "class_count": 1000}
    calls = [on(call(**wide), fail=name) for name, _ in REFUSALS]
    found = answers(*calls, call(**wide), on(call(**wide), fail="cuLaunchKernel"), call(device=7))
    for (name, seen), answer in zip(REFUSALS, found, strict=False):
        assert answer["status"] == CUDA_FAILED
        assert answer["message"] == f"{name} failed: CUDA_ERROR_ILLEGAL_ADDRESS"
        assert [line.split()[0] for line in answer["driver"]] == seen
    # what failed to load is tried again
    assert found[3]["status"] == OK
    assert found[4]["message"] == "cuLaunchKernel failed: CUDA_ERROR_ILLEGAL_ADDRESS"
    assert found[5]["message"] == "cuDeviceGet failed: CUDA_ERROR_INVALID_DEVICE"


def test_missing_context_or_driver_gives_unsupported() -> None:
    (without,) = answers(on(call(), context=0))
    assert (without["status"], without["message"]) == (
        UNSUPPORTED,
        "no CUDA context is current",
    )
    (refusing,) = answers(on(call(), fail="cuInit"))
    assert refusing["status"] == UNSUPPORTED
    assert "cuInit failed with 700: no GPU can be used" in refusing["message"]
    (old,) = answers(call(), driver=build_stub_driver(old=True))
    assert old["status"] == UNSUPPORTED
    assert "libcuda.so.1 is no NVIDIA driver that taidpt knows" in old["message"]


def test_bad_input_never_reaches_the_driver() -> None:
    for answer in answers(call(dim=0), call(dtype=5), call(similarities=None), call(batch=-1)):
        assert answer["status"] == 1
        assert answer["driver"] == []
        assert "P = 49" in answer["message"]


def test_build_without_kernels_gives_unsupported(tmp_path: Path) -> None:
    run_cmake("-S", str(REPOSITORY), "-B", str(tmp_path), "-DTAIDPT_GPU_KERNELS=OFF")
    run_cmake("--build", str(tmp_path), "--parallel", "2")
    (answer,) = answers(call(), library=tmp_path / "libtaidpt.so")
    assert answer["status"] == UNSUPPORTED
    assert "holds no GPU kernels" in answer["message"]
    assert answer["driver"] == []

"""The C library through ctypes against the definition, and how it is built."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
from typing import Any

import numpy as np
import pytest
import torch

from taidpt.kernels.local_similarity import naive
from taidpt.kernels.local_similarity.inputs import Inputs
from tests.kernels.cases import TOLERANCES, Case, make_inputs
from tests.kernels.native_build import built_library, load_library, run_cmake
from tests.kernels.native_interface import Arguments
from tests.support import REPOSITORY

CPU, CURRENT = -1, -2
OK, BAD_INPUT, UNSUPPORTED = 0, 1, 2
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def arguments(inputs: Inputs, out: torch.Tensor, device: int = CPU) -> Arguments:
    batch, patches, dim = inputs.patches.shape
    return Arguments(
        inputs.patches.data_ptr(),
        inputs.class_embeddings.data_ptr(),
        None if inputs.values is None else inputs.values.data_ptr(),
        None if inputs.mask is None else inputs.mask.data_ptr(),
        out.data_ptr(),
        batch,
        patches,
        inputs.class_embeddings.shape[0],
        dim,
        inputs.temperature,
        DTYPES[inputs.patches.dtype],
        device,
        None,
    )


def call(inputs: Inputs, device: int = CPU) -> torch.Tensor:
    """Through the library; the output is poisoned first."""
    shape = (inputs.patches.shape[0], inputs.class_embeddings.shape[0])
    out = torch.full(shape, float("nan"), device=inputs.patches.device)
    library = load_library()
    status = library.taidpt_local_similarity(ctypes.byref(arguments(inputs, out, device)))
    assert status == OK, library.taidpt_last_error()
    return out


def refused(inputs: Inputs, status: int, device: int = CPU, **changed: Any) -> str:
    """The message of a call that must fail with this status and write nothing."""
    shape = (inputs.patches.shape[0], inputs.class_embeddings.shape[0])
    out = torch.full(shape, 7.0)
    given = arguments(inputs, out, device)
    for name, value in changed.items():
        setattr(given, name, value)
    library = load_library()
    assert library.taidpt_local_similarity(ctypes.byref(given)) == status
    assert bool((out == 7.0).all())
    message: bytes = library.taidpt_last_error()
    return message.decode()


@pytest.mark.parametrize(
    ("masked", "valued"), list(itertools.product((False, True), (False, True)))
)
@pytest.mark.parametrize("dtype", list(DTYPES), ids=str)
def test_cpu_is_the_definition(dtype: torch.dtype, masked: bool, valued: bool) -> None:
    inputs = make_inputs(Case(3, 50, 81, 200, dtype, masked, valued))
    atol, rtol = TOLERANCES["forward", torch.float32, "chunked"]
    expected = naive.local_similarity(*inputs)
    torch.testing.assert_close(call(inputs), expected, atol=atol, rtol=rtol)


def compete(inputs: Inputs, device: int = CPU) -> torch.Tensor:
    """The second read-out through the library; output and workspace are poisoned first."""
    shape = (inputs.patches.shape[0], inputs.class_embeddings.shape[0])
    out = torch.full(shape, float("nan"), device=inputs.patches.device)
    library = load_library()
    given = arguments(inputs, out, device)
    size = library.taidpt_competing_workspace(ctypes.byref(given))
    workspace = torch.full((size // 4,), float("nan"), device=out.device)
    status = library.taidpt_competing_similarity(ctypes.byref(given), workspace.data_ptr() or None)
    assert status == OK, library.taidpt_last_error()
    return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", [(3, 50, 81, 200), (1, 1, 1, 1), (1, 196, 1000, 64)])
@pytest.mark.parametrize("dtype", list(DTYPES), ids=str)
def test_cpu_second_read_out_is_its_definition(
    dtype: torch.dtype, sizes: tuple[int, int, int, int], masked: bool
) -> None:
    inputs = make_inputs(Case(*sizes, dtype, masked))
    atol, rtol = TOLERANCES["forward", torch.float32, "chunked"]
    expected = naive.competing_similarity(*inputs[:4])
    torch.testing.assert_close(compete(inputs), expected, atol=atol, rtol=rtol)


def test_cpu_second_read_out_of_large_logits() -> None:
    """e to the power of a logit overflows fp32; classes of a patch stand in any order."""
    inputs = make_inputs(Case(2, 5, 40, 8))._replace(temperature=1000.0)
    expected = naive.competing_similarity(*inputs[:4])
    torch.testing.assert_close(compete(inputs), expected, atol=1e-3, rtol=1e-3)


def test_second_read_out_refuses_values_and_nan() -> None:
    inputs = make_inputs(Case(1, 3, 5, 8, valued=True))
    library, out = load_library(), torch.full((1, 5), 7.0)
    given = arguments(inputs, out)
    assert library.taidpt_competing_similarity(ctypes.byref(given), None) == BAD_INPUT
    assert b"no values" in library.taidpt_last_error()
    inputs.class_embeddings[3, 2] = float("inf")
    given = arguments(inputs._replace(values=None), out)
    assert library.taidpt_competing_similarity(ctypes.byref(given), None) == BAD_INPUT
    assert b"class_embeddings or values hold NaN or infinity" in library.taidpt_last_error()
    assert bool((out == 7.0).all())


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 196, 1000, 64), (1, 7, 33, 17)])
def test_cpu_sizes(sizes: tuple[int, int, int, int]) -> None:
    inputs = make_inputs(Case(*sizes))
    expected = naive.local_similarity(*inputs)
    torch.testing.assert_close(call(inputs), expected, atol=1e-5, rtol=1e-5)


def test_every_half_is_read() -> None:
    """All finite fp16 values, subnormals and signs: each is a class of one feature."""
    bits = np.arange(65536, dtype=np.uint16)
    halves = bits.view(np.float16)
    bank = torch.from_numpy(halves[np.isfinite(halves)].copy())[:, None]
    found = call(Inputs(torch.ones(1, 1, 1, dtype=torch.float16), bank, 1.0, None, None))
    assert torch.equal(found[0], bank[:, 0].float())


def test_every_bfloat_is_read() -> None:
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    bank = bits.view(torch.bfloat16)
    bank = bank[torch.isfinite(bank)][:, None].contiguous()
    found = call(Inputs(torch.ones(1, 1, 1, dtype=torch.bfloat16), bank, 1.0, None, None))
    assert torch.equal(found[0], bank[:, 0].float())


def test_empty_batch() -> None:
    inputs = make_inputs(Case(1, 4, 5, 8))
    assert call(inputs._replace(patches=inputs.patches[:0])).shape == (0, 5)


def test_invalid_input_message_names_sizes() -> None:
    inputs = make_inputs(Case(2, 3, 5, 8))
    assert "P = 0" in refused(inputs, BAD_INPUT, patch_count=0)
    assert "C = 0" in refused(inputs, BAD_INPUT, class_count=0)
    assert "temperature above 0" in refused(inputs, BAD_INPUT, temperature=float("nan"))
    assert "received 9" in refused(inputs, BAD_INPUT, dtype=9)
    assert "must not be null" in refused(inputs, BAD_INPUT, patches=None)
    assert "received -3" in refused(inputs, BAD_INPUT, device=-3)
    inputs.patches[1, 2, 3] = float("nan")
    message = refused(inputs._replace(patches=inputs.patches[1:]), BAD_INPUT)
    assert "patches hold NaN" in message
    assert "B = 1, P = 3, C = 5, D = 8" in message


def test_gpu_call_without_gpu_gives_unsupported() -> None:
    if torch.cuda.is_available():
        pytest.skip("gpu: this machine has one")
    inputs = make_inputs(Case(1, 3, 5, 8))
    message = refused(inputs, UNSUPPORTED, device=0)
    assert "libcuda.so.1" in message or "cuInit" in message or "no GPU kernels" in message


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(DTYPES), ids=str)
@pytest.mark.parametrize("sizes", [(1, 49, 80, 512), (8, 196, 1000, 1024), (2, 50, 81, 200)])
def test_gpu_is_the_definition(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    """Through PTX where the build holds no kernel of this GPU's architecture."""
    inputs = make_inputs(Case(*sizes, dtype, masked=True, valued=sizes[0] == 2))
    moved = Inputs(*(t.cuda() if isinstance(t, torch.Tensor) else t for t in inputs))
    torch.cuda.synchronize()
    found = call(moved, CURRENT)
    torch.cuda.synchronize()
    expected = naive.local_similarity(*inputs)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", list(DTYPES), ids=str)
@pytest.mark.parametrize("sizes", [(1, 49, 80, 512), (8, 196, 1000, 1024), (2, 50, 81, 200)])
def test_gpu_second_read_out_is_its_definition(
    sizes: tuple[int, int, int, int], dtype: torch.dtype
) -> None:
    inputs = make_inputs(Case(*sizes, dtype, masked=True))
    moved = Inputs(*(t.cuda() if isinstance(t, torch.Tensor) else t for t in inputs))
    torch.cuda.synchronize()
    found = compete(moved, CURRENT)
    torch.cuda.synchronize()
    expected = naive.competing_similarity(*inputs[:4])
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_library_links_no_cuda_and_exports_only_its_interface() -> None:
    library = built_library()
    dynamic = subprocess.run(
        ["readelf", "-dW", str(library)], capture_output=True, text=True, check=True
    ).stdout
    assert "libcuda" not in dynamic
    names = subprocess.run(
        ["nm", "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in names.splitlines()}
    ours = {name for name in exported if name.startswith("taidpt_")}
    assert ours == {
        "taidpt_abi_version",
        "taidpt_competing_similarity",
        "taidpt_competing_workspace",
        "taidpt_kernel_count",
        "taidpt_last_error",
        "taidpt_local_similarity",
        "taidpt_prepare",
    }


def test_cmake_reports_skipped_parts(tmp_path: Any) -> None:
    load_library()  # a compiler and cmake are there
    output = run_cmake("-S", str(REPOSITORY), "-B", str(tmp_path), "-DTAIDPT_GPU_KERNELS=OFF")
    assert "GPU kernels: none, CPU only" in output
    assert "TensorRT plugin: skipped; give -DTENSORRT_INCLUDE_DIR" in output


def test_ctest_runs_the_library_that_was_built() -> None:
    """`ctest --test-dir BUILD` finds the C++ test and pytest's; the C++ test passes."""
    command = ["ctest", "--test-dir", str(built_library().parent), "--output-on-failure"]
    listed = subprocess.run([*command, "-N"], capture_output=True, text=True, check=True).stdout
    for name in ("library", "native", "native_launch", "aot", "tensorrt_plugin"):
        assert f": {name}\n" in listed, listed
    command += ["-R", "^library$"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "100% tests passed, 0 tests failed out of 1" in done.stdout

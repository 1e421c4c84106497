"""The Triton kernels against the definition in float64: on a GPU, else in the interpreter.

The interpreter takes milliseconds an operation whatever its size, so its tiles are large; it
checks values only. Shared memory is checked ahead of time, real tiles in the GPU suite.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from taidpt.kernels.local_similarity import (
    PreparedLocalSimilarity,
    chunked,
    dispatch,
    local_similarity,
    naive,
    triton_backward,
    triton_launch,
)
from taidpt.kernels.local_similarity.chunked import Forward
from taidpt.kernels.local_similarity.inputs import Epilogue, Inputs
from taidpt.kernels.local_similarity.tiles import Tiles, ahead_of_time
from taidpt.kernels.local_similarity.triton_competing import Blocks, launch_competing
from taidpt.kernels.local_similarity.triton_operands import (
    architecture_of,
    inverse_lengths,
    prepared,
)
from tests.kernels.cases import TOLERANCES, Case, make_inputs
from tests.kernels.triton_device import DEVICE, INTERPRETED

PATCHES = (49, 50, 196, 197, 784)
CLASSES = (1, 20, 80, 81, 1000)
DIMS = (256, 512, 768, 1024, 1280)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def pairwise() -> list[Case]:
    """Every two of (P, C, D, type, mask, values) meet in some case: a Latin square of 25."""
    cases = []
    for i, j in itertools.product(range(5), range(5)):
        options = {"masked": (i + j) % 2 == 1, "valued": (2 * i + j) % 4 == 3}
        sizes = (1 + (i + j) % 2, PATCHES[i], CLASSES[(i + j) % 5], DIMS[j])
        cases.append(Case(*sizes, DTYPES[(i + 2 * j) % 3], **options))
    return cases


# the two longest lists of classes meet one other size each
LONG = [Case(1, 49, 4585, 512, torch.bfloat16), Case(1, 50, 20000, 256, torch.float16, True)]


def wide(case: Case) -> Inputs:
    """The same values in float64."""
    inputs = make_inputs(case)
    return inputs._replace(
        patches=inputs.patches.double(),
        class_embeddings=inputs.class_embeddings.double(),
        values=None if inputs.values is None else inputs.values.double(),
    )


def on_device(inputs: Inputs) -> Inputs:
    moved = [value.to(DEVICE) if isinstance(value, torch.Tensor) else value for value in inputs]
    return Inputs(*moved)


def large_tiles(case: Case) -> Tiles | None:
    """Few programs for the interpreter; on a GPU the table's own choice."""
    if not INTERPRETED:
        return None
    block_c = min(1024, max(16, 1 << (case.classes - 1).bit_length()))
    block_p = min(256, 1 << (case.patches - 1).bit_length())
    # a launch for the lengths alone has a program for each patch: with many patches they are fused
    return Tiles(block_c, 1, block_p, 512, warps=4, stages=1, fuse_length=case.patches > 100)


def assert_forward(case: Case, tiles: Tiles | None, **keep: bool) -> None:
    expected = chunked.forward(wide(case))
    operands = prepared(on_device(make_inputs(case)))
    outputs = triton_launch.launch_forward(operands, tiles=tiles, **keep)
    atol, rtol = TOLERANCES["forward", case.dtype, "triton"]
    torch.testing.assert_close(outputs.result.cpu().double(), expected.result, atol=atol, rtol=rtol)
    if outputs.log_sum is not None:
        log_sum = outputs.log_sum.cpu().double()
        torch.testing.assert_close(log_sum, expected.log_sum, atol=1e-4, rtol=1e-5)
    if outputs.best is not None:
        assert_best(wide(case), outputs.best.cpu().long())


def assert_best(inputs: Inputs, best: torch.Tensor) -> None:
    """The named patch is as similar as the most similar one; -1 exactly where there is none."""
    unit = torch.nn.functional.normalize(inputs.patches, dim=-1)
    similarity = unit @ inputs.class_embeddings.T
    if inputs.mask is not None:
        similarity.masked_fill_(~inputs.mask[:, :, None], -torch.inf)
        assert torch.equal((best < 0).all(1), ~inputs.mask.any(1))
    named = similarity.gather(1, best[:, None].clamp_min(0))[:, 0]
    torch.testing.assert_close(named, similarity.amax(1), atol=1e-5, rtol=0)


def test_the_square_is_pairwise() -> None:
    cases = pairwise()
    for left, right in itertools.combinations(("patches", "classes", "dim", "dtype"), 2):
        met = {(getattr(case, left), getattr(case, right)) for case in cases}
        ones, others = ({pair[side] for pair in met} for side in (0, 1))
        assert len(met) == len(ones) * len(others), (left, right)
    assert {(case.masked, case.valued) for case in cases} == set(
        itertools.product((False, True), repeat=2)
    )


@pytest.mark.parametrize("case", [*pairwise(), *LONG], ids=str)
def test_forward(case: Case) -> None:
    assert_forward(case, large_tiles(case))


TILES = [
    Tiles(32, 2, 32, 32, 4, 2),
    Tiles(32, 1, 64, 64, 4, 2, tails=(32, 16)),
    Tiles(16, 1, 16, 32, 4, 2, splits=3, fuse_length=True),
    Tiles(32, 4, 128, 32, 4, 1, fuse_length=True, group=2),
    Tiles(32, 4, 32, 32, 4, 2, tails=(8, 4)),
]


@pytest.mark.parametrize("tiles", TILES, ids=lambda tiles: str(TILES.index(tiles)))
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_tails_splits_and_images(tiles: Tiles, masked: bool) -> None:
    """D is no multiple of a tile, B none of the images, C none of the classes."""
    case = Case(3, 105, 37, 72, torch.float32, masked, valued=masked)
    assert_forward(case, tiles, keep_log_sum=True, keep_best=True)


@pytest.mark.parametrize("kind", ["wide", "narrow", "general"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ahead_of_time_tiles_with_many_classes(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated, since a product that reads overwritten operands is wrong only now and then."""
    if INTERPRETED:
        monkeypatch.setattr(triton_launch, "architecture_of", lambda _: 90)
        case, architecture, repeats = Case(1, 20, 33, 68, dtype), 90, 1
    else:
        case, repeats = Case(1, 196, 20000, 1024, dtype), 6
        architecture = architecture_of(torch.empty(0, device=DEVICE))
    tiles = ahead_of_time(architecture, dtype.itemsize, kind)
    expected = chunked.forward(wide(case)).result
    operands = prepared(on_device(make_inputs(case)))
    atol, rtol = TOLERANCES["forward", dtype, "triton"]
    for _ in range(repeats):
        found = triton_launch.launch_forward(operands, tiles=tiles).result.cpu().double()
        torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


def test_joined_sums_equal_separate_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; the interpreter joins them an element at a time, so the case is small."""
    monkeypatch.setattr(triton_launch, "is_interpreted", lambda: False)
    assert_forward(Case(2, 7, 5, 16, masked=True), Tiles(16, 1, 8, 16, 4, 1))


def test_a_temperature_near_zero_gives_the_mean() -> None:
    case = Case(2, 20, 17, 32, temperature=1e-38)
    assert_forward(case, Tiles(32, 1, 32, 32, 4, 1))


@pytest.mark.parametrize("splits", [1, 2])
def test_kernel_applies_the_epilogue(splits: int) -> None:
    case = Case(2, 20, 33, 64, masked=True)
    similarity = chunked.forward(wide(case)).result
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(similarity.shape, generator=generator)
    scale, bias = (torch.randn(33, generator=generator) for _ in range(2))
    parts = [tensor.to(DEVICE) for tensor in (whole, scale, bias)]
    epilogue = Epilogue(parts[0], 0.3, parts[1], parts[2])
    tiles = Tiles(64, 1, 16, 64, 4, 1, splits=splits)
    operands = prepared(on_device(make_inputs(case)))
    found = triton_launch.launch_forward(operands, epilogue, tiles=tiles).result.cpu().double()
    expected = scale * (0.7 * whole + 0.3 * similarity) + bias
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


if not INTERPRETED:  # a CUDA graph needs a GPU

    @pytest.mark.parametrize("splits", [1, 2])
    @pytest.mark.parametrize("captured", [False, True], ids=["replayed", "in a caller's graph"])
    def test_prepared_call_reads_the_buffer_again(splits: int, captured: bool) -> None:
        first = on_device(make_inputs(Case(2, 40, 33, 64, masked=True)))
        other = on_device(make_inputs(Case(2, 40, 33, 64, masked=True), seed=1))
        tiles = Tiles(16, 1, 32, 64, 4, 2, splits=splits, fuse_length=True)
        buffer = first.patches.clone()
        bank, mask = first.class_embeddings, first.mask
        call = PreparedLocalSimilarity(buffer, bank, first.temperature, mask, tiles=tiles)
        run: Any = call
        if captured:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                call()
            run = graph.replay
        for patches in (other.patches, first.patches):
            buffer.copy_(patches)
            call.result.fill_(float("nan"))
            run()
            expected = local_similarity(patches, bank, first.temperature, mask)
            torch.testing.assert_close(call.result, expected, atol=1e-5, rtol=1e-5)

    def test_prepared_call_applies_the_epilogue_and_takes_empty_banks() -> None:
        inputs = on_device(make_inputs(Case(2, 20, 33, 64)))
        scale = torch.linspace(0.5, 2, 66, device=DEVICE)[::2]
        parts = (inputs.patches, inputs.class_embeddings, inputs.temperature)
        call = PreparedLocalSimilarity(*parts, epilogue=Epilogue(None, 1.0, scale, scale))
        expected = scale * local_similarity(*parts) + scale
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)
        empty = PreparedLocalSimilarity(parts[0], parts[1][:0], parts[2])
        assert empty().shape == (2, 0)


def gradients(case: Case, grad: torch.Tensor | None = None) -> tuple[list[Any], list[Any]]:
    """The kernel's and the definition's, of patches and class embeddings."""
    exact = wide(case)._replace(values=None)
    if grad is None:
        grad = torch.randn(case.batch, case.classes, generator=torch.Generator().manual_seed(2))
    saved = chunked.forward(exact)
    needs = (True, True, False)
    expected = chunked.backward(grad.double(), saved, exact, needs)
    assert saved.log_sum is not None
    here = Forward(saved.result.float().to(DEVICE), saved.log_sum.float().to(DEVICE))
    inputs = on_device(make_inputs(case))._replace(values=None)
    found = triton_backward.backward(grad.to(DEVICE), here, inputs, needs)
    return [each.cpu().double() for each in found[:2]], list(expected[:2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("sizes", "masked"), [((3, 20, 81, 64), True), ((2, 49, 80, 72), False)])
def test_backward(sizes: tuple[int, int, int, int], masked: bool, dtype: torch.dtype) -> None:
    case = Case(*sizes, dtype, masked)
    atol, _ = TOLERANCES["backward", dtype, "triton"]
    for found, expected in zip(*gradients(case), strict=True):
        assert (found - expected).norm() <= atol * expected.norm()
        if masked and found.ndim == 3:
            assert found[0].abs().max() == 0


def test_backward_in_chunks_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backward, "_chunk", lambda *sizes: 64)
    for classes in (150, 152):  # read one at a time, and four
        for found, expected in zip(*gradients(Case(2, 9, classes, 32)), strict=True):
            assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_expanded_and_strided_gradients() -> None:
    """Expanded, as those of a sum and of a mean over images are, or with other strides."""
    case = Case(3, 9, 37, 32)
    row = torch.randn(37, generator=torch.Generator().manual_seed(3))
    whole = torch.randn(37, 6, generator=torch.Generator().manual_seed(4))
    laid = [torch.full((), 0.5).expand(3, 37), row.expand(3, 37), row[:3, None].expand(3, 37)]
    for grad in (*laid, whole.T[::2]):
        for found, expected in zip(*gradients(case, grad), strict=True):
            assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("splits", [1, 3])
def test_forward_returns_lengths_for_the_backward_pass(splits: int) -> None:
    operands = prepared(on_device(make_inputs(Case(3, 37, 41, 40, masked=True))))
    tiles = Tiles(16, 1, 16, 32, 4, 1, splits=splits, fuse_length=True)
    expected = inverse_lengths(operands.patches)
    found = triton_launch.launch_forward(operands, tiles=tiles, keep_log_sum=True).inverse
    assert found is not None
    torch.testing.assert_close(found, expected, atol=0, rtol=1e-6)
    apart = replace(tiles, splits=1, fuse_length=False)
    found = triton_launch.launch_forward(operands, tiles=apart, keep_log_sum=True).inverse
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert triton_launch.launch_forward(operands, tiles=tiles).inverse is None


@pytest.mark.parametrize("masked", [False, True])
def test_plain_call_with_gradients_through_triton(
    monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    """From the front door: what the forward launch leaves is what the backward one reads."""
    monkeypatch.setattr(dispatch, "uses_triton", lambda inputs: True)
    inputs = on_device(make_inputs(Case(2, 20, 33, 64, masked=masked), requires_grad=True))
    leaves = [inputs.patches.detach().requires_grad_(), inputs.class_embeddings.detach()]
    leaves[1].requires_grad_()
    pairs = []
    for method in (local_similarity, naive.local_similarity):
        result = method(leaves[0], leaves[1], 40.0, inputs.mask)
        pairs.append((result.detach(), *torch.autograd.grad(result.sin().sum(), leaves)))
    for found, expected in zip(*pairs, strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


def test_unsupported_gpu_error_names_the_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    patches: Any = SimpleNamespace(is_cuda=True, device="cuda:0", shape=(2, 49, 512))
    with pytest.raises(RuntimeError, match=r"6\.1 is unsupported.*\(2, 49, 512\)"):
        architecture_of(patches)


def test_memory_of_a_chunk_is_bounded() -> None:
    for sizes in ((512, 20, 5000), (64, 196, 20000), (4096, 196, 20000)):
        for item_bytes in (2, 4):
            step = triton_backward._chunk(*sizes, item_bytes)
            # rows are padded to a multiple of 16 elements
            taken = (step - 16) * sizes[0] * sizes[1] * item_bytes
            assert taken <= max(20 * sizes[0] * sizes[2], 1 << 26), sizes
            assert step % 16 == 0
    # similarities and log denominators, and a chunk: what a tuning step may take of each B x C
    assert 8 + triton_backward._chunk(512, 20, 5000, 2) * 512 * 20 * 2 / (512 * 5000) <= 32
    assert triton_backward._chunk(1, 49, 80, 2) == 80
    assert triton_backward._chunk(64, 196, 1001, 2) == 1001


def test_masked_nan_changes_nothing() -> None:
    inputs = make_inputs(Case(2, 20, 17, 32, masked=True))
    assert inputs.mask is not None
    clean = triton_launch.launch_forward(prepared(on_device(inputs))).result
    inputs.patches[~inputs.mask] = float("nan")
    dirty = triton_launch.launch_forward(prepared(on_device(inputs))).result
    assert torch.equal(clean, dirty)


def test_strided_inputs_need_no_copy() -> None:
    inputs = make_inputs(Case(3, 10, 17, 32))
    tiles = Tiles(32, 1, 16, 32, 4, 1)
    plain = triton_launch.launch_forward(prepared(on_device(inputs)), tiles=tiles).result
    turned = inputs._replace(
        patches=inputs.patches.transpose(0, 1).contiguous().transpose(0, 1),
        class_embeddings=inputs.class_embeddings.T.contiguous().T,
    )
    found = triton_launch.launch_forward(prepared(on_device(turned)), tiles=tiles).result
    assert torch.equal(plain, found)


@pytest.mark.parametrize(
    "case",
    [
        Case(2, 20, 81, 96),
        Case(1, 21, 20, 96, torch.bfloat16, masked=True),
        Case(2, 7, 130, 64, torch.float16, masked=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("blocks", [Blocks(128, 64, 128), Blocks(64, 16, 64)], ids=str)
def test_second_read_out(case: Case, blocks: Blocks) -> None:
    """Classes in one tile and in several, patches too."""
    expected = naive.competing_similarity(*wide(case)[:4])
    found = launch_competing(prepared(on_device(make_inputs(case))), blocks)
    atol, rtol = TOLERANCES["forward", case.dtype, "triton"]
    torch.testing.assert_close(found.cpu().double(), expected, atol=atol, rtol=rtol)


def test_second_read_out_of_masked_nan_and_strided_patches() -> None:
    inputs = make_inputs(Case(2, 20, 30, 64, masked=True))
    assert inputs.mask is not None
    expected = naive.competing_similarity(*inputs[:4])
    spoilt = torch.where(inputs.mask[:, :, None], inputs.patches, torch.nan)
    turned = spoilt.transpose(0, 1).contiguous().transpose(0, 1)
    operands = prepared(on_device(inputs._replace(patches=turned)))
    found = launch_competing(operands, Blocks(64, 32, 64)).cpu()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

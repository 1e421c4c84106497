"""The torch operator on a CPU against the definition."""

from __future__ import annotations

import itertools

import pytest
import torch

from taidpt.kernels.local_similarity import chunked, local_similarity, naive
from tests.kernels.cases import TOLERANCES, Case, make_inputs

OPTIONS = list(itertools.product((False, True), (False, True)))


@pytest.mark.parametrize(("masked", "valued"), OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_is_the_definition(dtype: torch.dtype, masked: bool, valued: bool) -> None:
    inputs = make_inputs(Case(3, 49, 81, 96, dtype, masked, valued))
    atol, rtol = TOLERANCES["forward", dtype, "chunked"]
    expected = naive.local_similarity(*inputs)
    torch.testing.assert_close(local_similarity(*inputs), expected, atol=atol, rtol=rtol)


@pytest.mark.parametrize(("masked", "valued"), OPTIONS)
def test_backward_is_that_of_the_definition(masked: bool, valued: bool) -> None:
    inputs = make_inputs(Case(3, 7, 11, 16, torch.float64, masked, valued), requires_grad=True)
    leaves = [t for t in (inputs.patches, inputs.class_embeddings, inputs.values) if t is not None]
    expected_result = naive.local_similarity(*inputs)
    direction = torch.randn(expected_result.shape, dtype=torch.float64)
    expected = torch.autograd.grad(expected_result, leaves, direction)
    found = torch.autograd.grad(local_similarity(*inputs), leaves, direction)
    atol, rtol = TOLERANCES["backward", torch.float64, "chunked"]
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, atol=atol, rtol=rtol)
    if masked:
        assert found[0][0].abs().max() == 0


@pytest.mark.parametrize("elements", [1, 500, 5000])
def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    inputs = make_inputs(Case(5, 9, 300, 8, torch.float64, True, True), requires_grad=True)
    whole = local_similarity(*inputs)
    whole_grad = torch.autograd.grad(whole.sum(), inputs.class_embeddings)[0]
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", elements)
    parts = local_similarity(*inputs)
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=0)
    part_grad = torch.autograd.grad(parts.sum(), inputs.class_embeddings)[0]
    torch.testing.assert_close(part_grad, whole_grad, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_fp32(dtype: torch.dtype) -> None:
    inputs = make_inputs(Case(2, 10, 20, 64, dtype))
    result = local_similarity(*inputs)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, naive.local_similarity(*inputs), atol=1e-5, rtol=1e-5)


def test_autocast_takes_factors_as_matmul_does() -> None:
    inputs = make_inputs(Case(2, 10, 20, 64, masked=True, valued=True), requires_grad=True)
    leaves = [t for t in (inputs.patches, inputs.class_embeddings, inputs.values) if t is not None]
    halves = [leaf.bfloat16() for leaf in leaves]
    expected = naive.local_similarity(halves[0], halves[1], 40.0, inputs.mask, halves[2])
    with torch.autocast("cpu", torch.bfloat16):
        found = local_similarity(*inputs)
        gradients = torch.autograd.grad(found.sum(), leaves)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    exact = make_inputs(Case(2, 10, 20, 64, torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        found = local_similarity(*exact)
    torch.testing.assert_close(found, naive.local_similarity(*exact), atol=1e-12, rtol=1e-12)


def test_strides_and_an_empty_batch() -> None:
    inputs = make_inputs(Case(4, 6, 10, 16))
    strided = inputs.patches.transpose(1, 2).contiguous().transpose(1, 2)
    bank = inputs.class_embeddings.T.contiguous().T
    expected = naive.local_similarity(*inputs)
    torch.testing.assert_close(local_similarity(strided, bank, 40.0), expected)
    assert local_similarity(inputs.patches[:0], bank, 40.0).shape == (0, 10)


def test_a_zero_patch_weighs_nothing_and_gives_no_nan() -> None:
    inputs = make_inputs(Case(2, 5, 4, 8))
    inputs.patches[0] = 0
    assert local_similarity(*inputs)[0].abs().max() == 0


@pytest.mark.parametrize(("masked", "valued"), OPTIONS)
def test_opcheck(masked: bool, valued: bool) -> None:
    inputs = make_inputs(Case(2, 5, 7, 8, torch.float32, masked, valued), requires_grad=True)
    torch.library.opcheck(torch.ops.taidpt.local_similarity.default, (*inputs, True))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_with_gradients(backend: str) -> None:
    inputs = make_inputs(Case(2, 5, 7, 8, torch.float32, True), requires_grad=True)

    def doubled(*arguments: torch.Tensor) -> torch.Tensor:
        return 2 * local_similarity(*arguments)

    compiled = torch.compile(doubled, backend=backend, fullgraph=True)(*inputs)
    expected = 2 * naive.local_similarity(*inputs)
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=1e-5)
    leaves = (inputs.patches, inputs.class_embeddings)
    pairs = zip(
        torch.autograd.grad(compiled.sum(), leaves),
        torch.autograd.grad(expected.sum(), leaves),
        strict=True,
    )
    for left, right in pairs:
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-4)


BAD = [
    ((2, 3), (4, 3), ValueError, r"\[B, P, D\], received shape \(2, 3\)"),
    ((1, 2, 3), (1, 4, 3), ValueError, r"\[C, D\], received shape \(1, 4, 3\)"),
    ((1, 2, 3), (4, 5), ValueError, r"\(1, 2, 3\).*D = 3.*\(4, 5\).*D = 5"),
    ((1, 0, 3), (4, 3), ValueError, r"\(1, 0, 3\).*P is 0"),
    ((1, 2, 3), (0, 3), ValueError, r"\(0, 3\).*C is 0"),
    ((1, 2, 0), (4, 0), ValueError, r"\(1, 2, 0\).*D is 0"),
]


@pytest.mark.parametrize(("patches", "bank", "error", "message"), BAD)
def test_invalid_shapes_raise_with_their_sizes(
    patches: tuple[int, ...], bank: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        local_similarity(torch.ones(patches), torch.ones(bank), 40.0)


def test_invalid_values_raise_with_their_names() -> None:
    patches, bank = torch.ones(2, 3, 4), torch.ones(5, 4)
    broken = patches.clone()
    broken[1, 2, 3] = float("nan")
    with pytest.raises(ValueError, match=r"patches \(2, 3, 4\): 1 elements are NaN"):
        local_similarity(broken, bank, 40.0)
    with pytest.raises(ValueError, match=r"above 0, received 0"):
        local_similarity(patches, bank, 0.0)
    with pytest.raises(TypeError, match=r"tensor of shape \(\)"):
        local_similarity(patches, bank, torch.tensor(1.0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"int64 of shape \(5, 4\)"):
        local_similarity(patches, bank.long(), 40.0)
    with pytest.raises(ValueError, match=r"\(5, 4\) lies on meta, patches \(2, 3, 4\) on cpu"):
        local_similarity(patches, bank.to("meta"), 40.0)
    with pytest.raises(ValueError, match=r"mask: expected \[B, P\] = \(2, 3\)"):
        local_similarity(patches, bank, 40.0, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"values: expected \[C, D\] = \(5, 4\)"):
        local_similarity(patches, bank, 40.0, values=torch.ones(4, 4))

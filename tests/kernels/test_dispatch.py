"""Plain calls bypass PyTorch's dispatcher; compilers, tracers and subclasses go through it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from taidpt.kernels import local_similarity as local_similarity_package
from taidpt.kernels.local_similarity import dispatch, local_similarity
from taidpt.kernels.local_similarity.inputs import Inputs
from tests.kernels.cases import Case, make_inputs


class Watcher(TorchDispatchMode):
    """Notes the operators of this package that the dispatcher sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "taidpt":
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Tagged(torch.Tensor):
    """A subclass, as libraries make them."""


def inputs_of(masked: bool = False, valued: bool = False) -> Inputs:
    return make_inputs(Case(3, 7, 11, 16, torch.float64, masked, valued), requires_grad=True)


def leaves_of(inputs: Inputs) -> list[torch.Tensor]:
    return [t for t in (inputs.patches, inputs.class_embeddings, inputs.values) if t is not None]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("valued", [False, True])
def test_call_past_the_dispatcher_equals_the_operator(masked: bool, valued: bool) -> None:
    inputs = inputs_of(masked, valued)
    leaves = leaves_of(inputs)
    plain = local_similarity(*inputs)
    gradients = torch.autograd.grad(plain.sin().sum(), leaves)
    with Watcher() as watcher:
        watched = local_similarity(*inputs)
        others = torch.autograd.grad(watched.sin().sum(), leaves)
    assert watcher.seen == [
        "taidpt.local_similarity.default",
        "taidpt.local_similarity_backward.default",
    ]
    assert type(plain.grad_fn).__name__ != type(watched.grad_fn).__name__
    assert torch.equal(plain, watched)
    for found, expected in zip(gradients, others, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
def test_compilers_tracers_and_subclasses_go_through_the_dispatcher() -> None:
    plain = torch.ones(2, 3)
    assert dispatch.bypasses_dispatcher(plain, None, torch.nn.Parameter(plain))
    assert not dispatch.bypasses_dispatcher(plain.as_subclass(Tagged))
    assert not dispatch.bypasses_dispatcher(plain.to("meta"))
    assert not dispatch.bypasses_dispatcher(torch._neg_view(plain))
    with FakeTensorMode() as mode:
        assert not dispatch.bypasses_dispatcher(plain)
        fake = mode.from_tensor(plain)
    assert not dispatch.bypasses_dispatcher(fake)
    seen = []
    torch.func.vmap(lambda row: seen.append(dispatch.bypasses_dispatcher(row)) or row)(plain)
    torch.jit.trace(
        lambda row: seen.append(dispatch.bypasses_dispatcher(row)) or row + 1,
        plain,
        check_trace=False,
    )
    assert set(seen) == {False}


def test_exported_program_contains_the_operator() -> None:
    inputs = make_inputs(Case(2, 5, 7, 8))

    class Module(torch.nn.Module):
        def forward(self, patches: torch.Tensor, bank: torch.Tensor) -> torch.Tensor:
            return local_similarity(patches, bank, 40.0)

    program = torch.export.export(Module(), (inputs.patches, inputs.class_embeddings))
    targets = [str(node.target) for node in program.graph.nodes]
    assert "taidpt.local_similarity.default" in targets


def test_no_gradient_graph_without_grad_mode() -> None:
    inputs = inputs_of()
    with torch.no_grad():
        assert not local_similarity(*inputs).requires_grad
    frozen = inputs._replace(patches=inputs.patches.detach())
    result = local_similarity(*frozen)
    (gradient,) = torch.autograd.grad(result.sum(), frozen.class_embeddings)
    assert gradient.shape == inputs.class_embeddings.shape
    assert frozen.patches.grad is None


def test_stacked_gradients_and_checkpoints() -> None:
    inputs = inputs_of(masked=True)
    result = local_similarity(*inputs)
    grads = torch.randn(2, *result.shape, dtype=result.dtype)
    bank = inputs.class_embeddings
    apart = [torch.autograd.grad(result, bank, each, retain_graph=True)[0] for each in grads]
    (stacked,) = torch.autograd.grad(result, bank, grads, retain_graph=True, is_grads_batched=True)
    torch.testing.assert_close(stacked, torch.stack(apart))
    again = checkpoint(local_similarity, *inputs, use_reentrant=False)
    (found,) = torch.autograd.grad(again, bank, grads[0])
    torch.testing.assert_close(found, apart[0])


def test_a_second_derivative_and_an_overwritten_result_are_errors() -> None:
    inputs = inputs_of()
    bank = inputs.class_embeddings
    result = local_similarity(*inputs)
    (gradient,) = torch.autograd.grad(result.sum(), bank, create_graph=True)
    with pytest.raises(RuntimeError, match="local_similarity_backward"):
        gradient.sum().backward()
    result = local_similarity(*inputs)
    result.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_a_backward_pass_under_autocast() -> None:
    """What autocast would round stays as exact as without it."""
    inputs = make_inputs(Case(2, 10, 20, 64), requires_grad=True)
    result = local_similarity(*inputs)
    (expected,) = torch.autograd.grad(result.sum(), inputs.class_embeddings, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(result.sum(), inputs.class_embeddings)
    assert torch.equal(found, expected)


def test_every_public_name_of_the_package_loads() -> None:
    for name in local_similarity_package.__all__:
        assert getattr(local_similarity_package, name) is not None
    assert set(local_similarity_package.__all__) <= set(dir(local_similarity_package))

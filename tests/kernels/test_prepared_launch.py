"""Calls prepared ahead, as far as they go without a GPU; triton_cases.py has the GPU's part."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from tests.kernels.cases import Case, make_inputs
from tests.support import require


@pytest.fixture(autouse=True)
def _triton() -> None:
    require("triton", importlib.util.find_spec("triton") is not None, "pip install triton")


def test_tensors_on_a_cpu_are_refused() -> None:
    from taidpt.kernels.local_similarity import PreparedLocalSimilarity

    inputs = make_inputs(Case(1, 4, 3, 8))
    with pytest.raises(ValueError, match=r"patches are on cpu.*call local_similarity"):
        PreparedLocalSimilarity(inputs.patches, inputs.class_embeddings, inputs.temperature)


def test_bound_launch_has_every_argument_in_the_kernels_order() -> None:
    from taidpt.kernels.local_similarity.triton_operands import Launch

    compiled = SimpleNamespace(run="run", function="function", packed_metadata="metadata")
    kernel = SimpleNamespace(arg_names=["x", "out", "P", "BLOCK", "EVEN"])
    # constants come by name, in any order, with options that are no arguments
    constants = {"EVEN": True, "num_warps": 4, "BLOCK": 64}
    launch = Launch(kernel, compiled, (5,), ("x", "out", 7), constants)
    assert launch.bound() == (
        "run",
        (5, 1, 1),
        ("function", "metadata", None, None, None),
        ("x", "out", 7, 64, True),
    )
    assert Launch(kernel, compiled, (5, 2), ("x", "out", 7), constants).bound()[1] == (5, 2, 1)

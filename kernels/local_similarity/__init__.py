"""Spatially weighted patch–class similarity, the local branch as one operator.

`Y[b, c] = Σ_p softmax_p(τ · x̂[b, p] · t[c]) · (x̂[b, p] · v[c])`, x̂ the L2-normalised patch and
v = t by default. A second read-out, for inference, lets classes compete within each patch and takes
the best patch: `Y[b, c] = max_p softmax_c(τ · x̂[b, p] · t[c])`. Importing this package loads
neither torch nor onnx: a name is loaded when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taidpt.kernels.local_similarity.competing import competing_similarity
    from taidpt.kernels.local_similarity.fused_scores import Scores, fused_scores
    from taidpt.kernels.local_similarity.inputs import Epilogue
    from taidpt.kernels.local_similarity.onnx_node import (
        COMPETING_OP_TYPE,
        DOMAIN,
        OP_TYPE,
        attach_function,
        competing_similarity_function,
        competing_similarity_node,
        local_similarity_function,
        local_similarity_node,
        onnx_translation_table,
    )
    from taidpt.kernels.local_similarity.prepared_launch import PreparedLocalSimilarity
    from taidpt.kernels.local_similarity.torch_op import local_similarity

__all__ = [
    "COMPETING_OP_TYPE",
    "DOMAIN",
    "OP_TYPE",
    "Epilogue",
    "PreparedLocalSimilarity",
    "Scores",
    "attach_function",
    "competing_similarity",
    "competing_similarity_function",
    "competing_similarity_node",
    "fused_scores",
    "local_similarity",
    "local_similarity_function",
    "local_similarity_node",
    "onnx_translation_table",
]

# Name → its module, where that is not `onnx_node`.
_HOMES = {
    "Epilogue": "inputs",
    "PreparedLocalSimilarity": "prepared_launch",
    "Scores": "fused_scores",
    "competing_similarity": "competing",
    "fused_scores": "fused_scores",
    "local_similarity": "torch_op",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'onnx_node')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

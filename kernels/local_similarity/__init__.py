"""Spatially weighted patch–class similarity, the local branch as one operator.

`Y[b, c] = Σ_p softmax_p(τ · x̂[b, p] · t[c]) · (x̂[b, p] · v[c])`, x̂ the L2-normalised patch and
v = t by default. Importing this package loads neither torch nor onnx: a name is loaded when used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taidpt.kernels.local_similarity.fused_scores import Epilogue, Scores, merged_scores
    from taidpt.kernels.local_similarity.onnx_export import onnx_translation_table
    from taidpt.kernels.local_similarity.onnx_node import (
        DOMAIN,
        OP_TYPE,
        attach_function,
        local_similarity_function,
        local_similarity_node,
    )
    from taidpt.kernels.local_similarity.torch_op import local_similarity

__all__ = [
    "DOMAIN",
    "OP_TYPE",
    "Epilogue",
    "Scores",
    "attach_function",
    "local_similarity",
    "local_similarity_function",
    "local_similarity_node",
    "merged_scores",
    "onnx_translation_table",
]

_HOMES = {
    "DOMAIN": "onnx_node",
    "Epilogue": "fused_scores",
    "OP_TYPE": "onnx_node",
    "Scores": "fused_scores",
    "attach_function": "onnx_node",
    "local_similarity": "torch_op",
    "local_similarity_function": "onnx_node",
    "local_similarity_node": "onnx_node",
    "merged_scores": "fused_scores",
    "onnx_translation_table": "onnx_export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

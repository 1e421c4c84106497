"""Run an engine of a bundle with the runtime's own backend, to compare it with the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from taidpt.export.parity.graph_outputs import BATCH, Arrays, Pixels
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.backends.engine_files import EngineFile, Machine
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.backends.tensorrt_library import import_tensorrt
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, ParityError
from taidpt.runtime.preprocess.preprocessor import Preprocessor
from taidpt.runtime.tagger.active_bank import own_bank
from taidpt.runtime.top_k import expand_top

__all__ = ["engine_outputs"]


def engine_outputs(
    bundle: Bundle, engine: EngineFile, pictures: Sequence[Pixels], trust_engine: bool = False
) -> Arrays:
    """All outputs of one engine for pictures, or frames of a baked size.

    Args:
        bundle: holds the engine.
        engine: one of its engines.
        pictures: uint8 RGB [H, W, 3] of any size.
        trust_engine: also run one that this machine did not record as its own.
    Raises:
        BackendError, MissingDependencyError: it cannot run here, or is stale.
        BundleError: it is not of this bundle's graph.
        ParityError: it loads here and fails when it runs.
    """
    from taidpt.runtime.backends.tensorrt_engine import TensorRTBackend

    here = Machine(
        engine.flavour, str(import_tensorrt(engine.flavour).__version__), gpu_architecture()
    )
    faults = engine.faults(bundle, here)
    if faults:
        raise BackendError("; ".join(faults))
    options = BackendOptions(engine.flavour, trust_engine=trust_engine, engine=engine.name)
    preprocess = Preprocessor(bundle.manifest.input)
    bank = own_bank(bundle).inputs
    backend = TensorRTBackend(bundle, options, engine.flavour)
    try:
        parts = [
            dict(backend.run(preprocess.batch(list(pictures[start : start + BATCH])), bank))
            for start in range(0, len(pictures), BATCH)
        ]
    except BackendError as error:
        raise ParityError(f"{engine.name} loads here and fails when it runs: {error}") from None
    finally:
        backend.close()
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if "scores" not in found:
        found["scores"], _ = expand_top(found, len(bundle.names))
    return found

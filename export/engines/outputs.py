"""Run an engine of a bundle with the runtime's own backend, to compare it with the reference."""

from __future__ import annotations

from collections.abc import Sequence

from taidpt.export.parity.graph_outputs import Arrays, Pixels, outputs_of
from taidpt.runtime.backends.base import BackendOptions
from taidpt.runtime.backends.engine_files import EngineFile, Machine
from taidpt.runtime.backends.gpu import gpu_architecture
from taidpt.runtime.backends.tensorrt_library import import_tensorrt
from taidpt.runtime.bundle.bundle import Bundle
from taidpt.runtime.errors import BackendError, ParityError
from taidpt.runtime.tagger.active_bank import own_bank

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
    bank = own_bank(bundle).inputs
    backend = TensorRTBackend(bundle, options, engine.flavour)
    try:
        spec, tags = bundle.manifest.input, len(bundle.names)
        return outputs_of(lambda frames: backend.run(frames, bank), spec, pictures, tags)
    except BackendError as error:
        raise ParityError(f"{engine.name} loads here and fails when it runs: {error}") from None
    finally:
        backend.close()

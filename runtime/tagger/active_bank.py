"""The tags that frames are scored with now: never changed, only replaced as a whole.

Every run of the graph takes one `ActiveBank` at its beginning: what it feeds the graph and what it
reads the scores by are of one bank, whoever swaps it meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from taidpt.runtime.backends.base import NO_BANK, BankInputs
from taidpt.runtime.bank.bank_file import map_local_embeddings
from taidpt.runtime.bank.class_bank import ClassBank
from taidpt.runtime.bundle.bundle import BANK_FILE, Bundle
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.results import Vocabulary

__all__ = [
    "BANK_INPUTS",
    "ActiveBank",
    "bundle_bank",
    "check_fit",
    "check_swappable",
    "fit_bank",
    "own_bank",
]

BANK_INPUTS = ("global_embeddings", "local_embeddings", "scale", "bias")


@dataclass(frozen=True, eq=False)
class ActiveBank:
    """One bank, ready to score with.

    Attributes:
        vocabulary: names, thresholds, probability maps and local rows.
        inputs: what the graph is fed beside the frames; empty where the bank is a constant of it.
        bank: the same as a bank; None where it is the bundle's own.
    """

    vocabulary: Vocabulary
    inputs: BankInputs
    bank: ClassBank | None = None


def own_bank(bundle: Bundle) -> ActiveBank:
    """The bundle's own bank, with the manifest's thresholds and probability maps.

    Raises:
        BundleError: the bank is damaged.
    """
    manifest = bundle.manifest
    swappable = manifest.graph.bank == "input"
    try:
        bank = bundle.bank if swappable else None
        rows = bank.local_embeddings if bank else map_local_embeddings(bundle.file(BANK_FILE))
        vocabulary = Vocabulary(
            manifest.names,
            tuple(tag.threshold for tag in manifest.tags),
            tuple(tag.probability for tag in manifest.tags),
            manifest.model.grid,
            rows,
        )
    except InputError as error:
        raise BundleError(f"{bundle.path}: {error}") from None
    return ActiveBank(vocabulary, _inputs(bank) if bank else NO_BANK)


def fit_bank(bank: ClassBank, bundle: Bundle, source: str) -> ActiveBank:
    """Another bank for a bundle whose bank is an input.

    Thresholds that the bank does not have, or has for another score transform, become defaults,
    and the log says so.

    Args:
        bank: any number of tags.
        source: what to call it in errors and the log.
    Raises:
        InputError: the bundle's bank is a constant, or the bank is of another model or dimension,
            or has value embeddings.
    """
    check_swappable(bundle)
    bank = check_fit(bank, bundle, source)
    manifest = bundle.manifest
    if bank.value_embeddings is not None:
        raise InputError(
            f"{source}: has value embeddings (DualCoOp), which no graph takes as an input; "
            "export it as a constant"
        )
    least = manifest.graph.top_k or 1
    if len(bank.names) < least:
        raise InputError(
            f"{source}: has {len(bank.names)} tags, and {bundle.path} was exported with --top-k "
            f"{least}, which needs {least} tags at least"
        )
    vocabulary = Vocabulary(
        bank.names, bank.thresholds, bank.probabilities, manifest.model.grid, bank.local_embeddings
    )
    return ActiveBank(vocabulary, _inputs(bank), bank)


def bundle_bank(bundle: Bundle) -> ClassBank:
    """A bundle's bank with what its manifest says: calibrated thresholds, model, scoring."""
    manifest = bundle.manifest
    return dataclasses.replace(
        bundle.bank,
        thresholds=tuple(tag.threshold for tag in manifest.tags),
        probabilities=tuple(tag.probability for tag in manifest.tags),
        metadata={
            **bundle.bank.metadata,
            "model": manifest.model.to_json(),
            "scoring": dataclasses.asdict(manifest.scoring),
        },
    )


def check_swappable(bundle: Bundle) -> None:
    """Raise InputError when a bundle's bank is a constant of its graph."""
    if bundle.manifest.graph.bank != "input":
        raise InputError(
            f"{bundle.path}: its tags are constants of the graph, so it takes no other bank; one "
            f"that does is made by: taidpt-export {bundle.path} --bank input -o NAME.taidpt"
        )


def _with_thresholds(bank: ClassBank, transform: str, source: str) -> ClassBank:
    """The bank with thresholds for these scores; the log says where defaults are used."""
    fitting = bank.with_thresholds_for(transform)
    if fitting is not bank:
        why = (
            f"are for scores with the transform {bank.score_transform}, this bundle's have "
            f"{transform}"
            if bank.thresholds
            else "are not in it"
        )
        import logging

        log = logging.getLogger("taidpt.runtime")
        log.warning("%s: thresholds %s; default ones are used", source, why)
    return fitting


def check_fit(bank: ClassBank, bundle: Bundle, source: str) -> ClassBank:
    """A bank of a bundle's model, with thresholds for its scores; constant banks fit as well.

    Raises:
        InputError: it is of another model or dimension, naming both.
    """
    model = bundle.manifest.model
    made_with = bank.metadata.get("model")
    of_model = made_with.get("weights_sha256") if isinstance(made_with, Mapping) else None
    if not isinstance(made_with, Mapping) or not isinstance(of_model, str):
        raise InputError(
            f"{source}: does not say which model it was made with, and {bundle.path} is of "
            f"{_model_text(model.to_json())}; make it with `taidpt bank`"
        )
    if of_model != model.weights_sha256:
        raise InputError(
            f"{source}: was made with {_model_text(made_with)}, and {bundle.path} is of "
            f"{_model_text(model.to_json())}; make the bank with the bundle's model"
        )
    if bank.dim != model.embed_dim:
        raise InputError(
            f"{source}: its rows have {bank.dim} dimensions, and those of {bundle.path} have "
            f"{model.embed_dim}"
        )
    return _with_thresholds(bank, bundle.manifest.scoring.transform, source)


def _model_text(model: Mapping[str, Any]) -> str:
    digest = str(model.get("weights_sha256", ""))[:12]
    return f"{model.get('name')} {model.get('pretrained')} (weights {digest}…)"


def _inputs(bank: ClassBank) -> BankInputs:
    arrays = {name: getattr(bank, name).view() for name in BANK_INPUTS}
    for array in arrays.values():
        array.flags.writeable = False
    return MappingProxyType(arrays)

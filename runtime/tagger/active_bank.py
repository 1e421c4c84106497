"""The bank that a tagger scores with now: immutable, and replaced as a whole.

Every run of the graph takes one `ActiveBank` at its start, so the graph's inputs and the
thresholds of its scores belong to one bank, even if another thread swaps the bank meanwhile.
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
    """A bank in the form that scoring needs.

    Attributes:
        vocabulary: names, thresholds, probability maps and local rows.
        inputs: the graph's inputs beside the frames; empty if the bank is a constant of the graph.
        bank: the bank itself; None for the bundle's own bank.
    """

    vocabulary: Vocabulary
    inputs: BankInputs
    bank: ClassBank | None = None


def own_bank(bundle: Bundle) -> ActiveBank:
    """The bundle's own bank, with the thresholds and probability maps of its manifest.

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
            manifest.input.view.corners,
        )
    except InputError as error:
        raise BundleError(f"{bundle.path}: {error}") from None
    return ActiveBank(vocabulary, _inputs(bank) if bank else NO_BANK)


def fit_bank(bank: ClassBank, bundle: Bundle, source: str) -> ActiveBank:
    """Prepare another bank for a bundle that takes the bank as an input.

    For one whose bank is a constant, a bank may differ from it in its thresholds and probability
    maps alone. Missing thresholds, and thresholds for another score transform, are replaced by
    defaults with a warning in the log.

    Args:
        bank: any number of tags, at least the K of an export with `--top-k`.
        bundle: the bundle that will score with it.
        source: the bank's name in errors and in the log.
    Raises:
        InputError: the bundle's bank is a constant, or the bank belongs to another model, has
            another dimension, has value embeddings, or has fewer than K tags.
    """
    manifest = bundle.manifest
    swappable = manifest.graph.bank == "input"
    if not swappable and not bank.has_rows_of(bundle.bank):
        check_swappable(bundle)
    bank = check_fit(bank, bundle, source)
    if swappable and bank.value_embeddings is not None:
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
        bank.names,
        bank.thresholds,
        bank.probabilities,
        manifest.model.grid,
        bank.local_embeddings,
        manifest.input.view.corners,
    )
    return ActiveBank(vocabulary, _inputs(bank) if swappable else NO_BANK, bank)


def bundle_bank(bundle: Bundle) -> ClassBank:
    """A bundle's bank with the thresholds, model and scoring of its manifest."""
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
    """Check that a bundle takes the bank as an input of its graph.

    Raises:
        InputError: its bank is a constant.
    """
    if bundle.manifest.graph.bank != "input":
        raise InputError(
            f"{bundle.path}: its tags are constants of the graph, so they cannot be replaced; "
            f"export one that allows it: taidpt-export {bundle.path} --swappable-bank "
            "-o NAME.taidpt"
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
    """Check that a bank belongs to a bundle's model, and return it as that bundle scores with it.

    It gets thresholds for the bundle's scores, and the background tags of the bundle's graph. The
    bundle's own bank may be a constant.

    Raises:
        InputError: the bank is of another model or dimension; the message names both.
    """
    model = bundle.manifest.model
    made_with = bank.metadata.get("model")
    of_model = made_with.get("weights_sha256") if isinstance(made_with, Mapping) else None
    if not isinstance(made_with, Mapping) or not isinstance(of_model, str):
        raise InputError(
            f"{source}: does not say which model it was made with, and {bundle.path} is of "
            f"{_model_text(model.to_json())}; make it with `taidpt bank make`"
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
    competes = bundle.manifest.provenance.get("background")
    behind = bundle.bank.background if competes else None
    if bank.background is not behind:  # a copy checks all rows again
        bank = dataclasses.replace(bank, background=behind)
    return _with_thresholds(bank, bundle.manifest.scoring.transform, source)


def _model_text(model: Mapping[str, Any]) -> str:
    digest = str(model.get("weights_sha256", ""))[:12]
    return f"{model.get('name')} {model.get('pretrained')} (weights {digest}…)"


def _inputs(bank: ClassBank) -> BankInputs:
    arrays = {name: getattr(bank, name).view() for name in BANK_INPUTS}
    for array in arrays.values():
        array.flags.writeable = False
    return MappingProxyType(arrays)

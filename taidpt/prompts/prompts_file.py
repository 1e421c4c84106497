"""Tuned prompts: the context vectors and everything needed to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.encoders.picture_input import PictureInput
from taidpt.prompts.tokens import NAME_POSITIONS
from taidpt.runtime.bank.class_bank import Threshold
from taidpt.runtime.bank.probability_maps import MapJson, ProbabilityMaps
from taidpt.runtime.bundle.scoring import Scoring
from taidpt.runtime.errors import BundleError, InputError
from taidpt.runtime.storage.atomic import write_atomically
from taidpt.runtime.storage.json_reader import JsonReader, parse_json
from taidpt.runtime.storage.regular_file import open_regular
from taidpt.texts.tags import Tag

__all__ = ["PROMPTS_SCHEMA", "PromptSettings", "TunedPrompts", "read_picture"]

PROMPTS_SCHEMA = 1
_KIND = "taidpt-prompts"
# The contexts of TaI; of TaI-DPT and CoOp; of DualCoOp.
_SETS = ({"global"}, {"global", "local"}, {"positive", "negative"})


@dataclass(frozen=True)
class PromptSettings:
    """The shape of a prompt.

    Attributes:
        context_tokens: context vectors per prompt.
        class_specific: whether each tag has its own vectors (DualCoOp) or all share one set.
        name_position: position of the tag's name among them: "end", "middle" or "front".
    """

    context_tokens: int = 16
    class_specific: bool = False
    name_position: str = "end"

    def __post_init__(self) -> None:
        if self.context_tokens < 1:
            raise InputError(f"a prompt needs a context token or more, got {self.context_tokens}")
        if self.name_position not in NAME_POSITIONS:
            raise InputError(
                f"name position {self.name_position!r}: expected one of {', '.join(NAME_POSITIONS)}"
            )


@dataclass(frozen=True, eq=False)
class TunedPrompts:
    """The result of tuning; `save` and `load` keep it in one safetensors file.

    Attributes:
        contexts: "global" and, unless only that was tuned, "local"; DualCoOp's are "positive" and
            "negative". Float32 [n, W], or [C, n, W] where class-specific.
        tags: C tags with their synonyms.
        thresholds: one per tag, or none.
        probabilities: a map from score to probability per tag, in a bank's form, or none.
        model: the CLIP: name, pretrained, weights_sha256, licence, embed_dim.
        settings: the prompts' shape.
        scoring: how pictures are scored with them.
        picture: how pictures were shown in tuning; None for prompts tuned on texts.
        provenance: free JSON: method, tuning settings, hash and sources of the texts, losses,
            versions.
    """

    contexts: Mapping[str, Tensor]
    tags: tuple[Tag, ...]
    thresholds: tuple[Threshold, ...]
    model: Mapping[str, Any]
    settings: PromptSettings = field(default_factory=PromptSettings)
    scoring: Scoring = field(default_factory=Scoring)
    picture: PictureInput | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    probabilities: tuple[MapJson | None, ...] = ()

    def __post_init__(self) -> None:
        _check_tags(self.tags, self.thresholds)
        if len(self.probabilities) not in (0, len(self.tags)):
            raise InputError(
                f"{len(self.probabilities)} probability maps for {len(self.tags)} tags"
            )
        ProbabilityMaps.of(self.probabilities)
        _check_contexts(self.contexts, self.settings, len(self.tags))

    def __repr__(self) -> str:
        heads = " and ".join(self.contexts)
        return f"TunedPrompts({len(self.tags)} tags, {heads}, for {self.model.get('name')})"

    @property
    def names(self) -> tuple[str, ...]:
        """The tags' names in order."""
        return tuple(tag.name for tag in self.tags)

    def check_model(self, clip: ClipModel) -> None:
        """Raise InputError unless the prompts were tuned for this CLIP."""
        if clip.weights_sha256 != self.model["weights_sha256"]:
            raise InputError(
                f"these prompts were tuned for {self.model['name']} with weights "
                f"{self.model['pretrained']} (sha256 {self.model['weights_sha256'][:12]}…), got "
                f"{clip.name} with {clip.pretrained} ({clip.weights_sha256[:12]}…): "
                "use the weights they were tuned for, or tune again"
            )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file in one step.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors.torch import save

        header = json.dumps(self._header(), ensure_ascii=False, allow_nan=False)
        tensors = {name: value.contiguous().cpu() for name, value in self.contexts.items()}
        try:
            write_atomically(Path(path), save(tensors, metadata={"taidpt": header}))
        except OSError as error:
            raise InputError(f"{path}: cannot write the prompts: {error.strerror}") from error

    def _header(self) -> dict[str, Any]:
        return {
            "kind": _KIND,
            "schema": PROMPTS_SCHEMA,
            "model": dict(self.model),
            "tags": [{"name": tag.name, "synonyms": list(tag.synonyms)} for tag in self.tags],
            "thresholds": [threshold.to_json() for threshold in self.thresholds],
            "probabilities": [None if row is None else dict(row) for row in self.probabilities],
            "settings": asdict(self.settings),
            "scoring": asdict(self.scoring),
            "picture": None if self.picture is None else asdict(self.picture),
            "provenance": dict(self.provenance),
        }

    @classmethod
    def load(cls, path: str | Path) -> TunedPrompts:
        """Read prompts that `save` wrote; no content of the file is unpickled or executed.

        Raises:
            InputError: the file is missing, damaged, of a newer version, or not a prompts file.
        """
        path = Path(path)
        header, tensors = _read(path)
        try:
            return _from_header(header, tensors)
        except (BundleError, InputError) as error:
            raise InputError(
                str(error) if str(path) in str(error) else f"{path}: {error}"
            ) from None


def _read(path: Path) -> tuple[JsonReader, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        open_regular(path).close()  # safetensors would wait for a pipe's writer
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        header = JsonReader(parse_json(metadata["taidpt"]), str(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; `taidpt tune` writes one") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or not a prompts file ({error}); tune again") from None
    except (KeyError, BundleError):
        raise InputError(f"{path}: not a prompts file; `taidpt tune` writes one") from None
    return header, tensors


def _from_header(header: JsonReader, tensors: dict[str, Tensor]) -> TunedPrompts:
    header.choice("kind", (_KIND,))
    if header.integer("schema") > PROMPTS_SCHEMA:
        raise InputError(
            f"prompts schema {header.integer('schema')} is newer than this version reads "
            f"({PROMPTS_SCHEMA}); update taidpt"
        )
    model = header.child("model")
    for key in ("name", "pretrained", "weights_sha256", "licence"):
        model.string(key)
    shape = header.child("settings")
    return TunedPrompts(
        contexts=tensors,
        tags=tuple(
            Tag(tag.string("name"), tag.strings("synonyms")) for tag in header.children("tags")
        ),
        thresholds=tuple(map(Threshold.from_json, header.children("thresholds"))),
        model=model.document,
        settings=PromptSettings(
            shape.integer("context_tokens"),
            shape.boolean("class_specific"),
            shape.string("name_position"),
        ),
        scoring=Scoring.from_metadata(header.child("scoring")),
        picture=read_picture(header.child("picture")) if "picture" in header else None,
        provenance=header.child("provenance").document,
        probabilities=_maps(header),
    )


def _maps(header: JsonReader) -> tuple[MapJson, ...]:
    """The probability maps; prompts of older versions have none."""
    if "probabilities" not in header:
        return ()
    return tuple(row.document for row in header.children("probabilities"))


def read_picture(reader: JsonReader) -> PictureInput:
    """How pictures were shown in tuning, from its JSON."""
    size = reader.integer("size", least=1) if "size" in reader else None
    branch = reader.string("local_branch") if "local_branch" in reader else "value"
    return PictureInput(size, reader.string("resize"), branch)


def _check_tags(tags: tuple[Tag, ...], thresholds: tuple[Threshold, ...]) -> None:
    names = [tag.name for tag in tags]
    if not names or len(set(names)) != len(names):
        raise InputError(
            f"prompts need distinct tags, got {len(names)} ({len(set(names))} distinct)"
        )
    if len(thresholds) not in (0, len(names)):
        raise InputError(f"{len(thresholds)} thresholds for {len(names)} tags")


def _check_contexts(contexts: Mapping[str, Tensor], settings: PromptSettings, tags: int) -> None:
    if set(contexts) not in _SETS:
        raise InputError(
            "contexts should be global (and local), or positive and negative, got "
            f"{', '.join(contexts) or 'none'}"
        )
    width = next(iter(contexts.values())).shape[-1]
    lead = (tags,) if settings.class_specific else ()
    expected = (*lead, settings.context_tokens, width)
    for name, value in contexts.items():
        if value.dtype != torch.float32 or tuple(value.shape) != expected:
            raise InputError(
                f"the {name} context should be float32 {list(expected)}, "
                f"got {value.dtype} {list(value.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"the {name} context holds values that are not finite")

"""Features of captions for tuning: one per token, encoded once and stored without padding.

Equal captions are tokenised and encoded once, in parts, and features that would fill the memory lie
in a file that is read as needed: memory grows with texts and their tokens, not with features.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.clip.tokenizers import text_tokenizer
from taidpt.features.prompt_encoder import token_features, tokenize_texts
from taidpt.runtime.errors import InputError

__all__ = ["CACHE_PRECISIONS", "CaptionFeatures", "FeatureBatch", "encode_captions", "texts_sha256"]

CACHE_PRECISIONS = {"fp32": np.float32, "fp16": np.float16}
_CACHE_FORMAT = 2
_FILES = ("tokens.npy", "pooled.npy", "offsets.npy")
# Features of this many bytes lie in a file: half of what a small machine of 4 GB can give.
_MOST_IN_MEMORY = 1 << 30
# Captions tokenised and encoded together: sorted by length, so that batches have little padding.
# Their padded token numbers take 40 MB, unpadded 3 MB.
_CAPTIONS_A_PART = 1 << 16

Progress = Callable[[int], None]
Note = Callable[[str], None]
_Arrays = tuple["npt.NDArray[np.floating]", "npt.NDArray[np.floating]", "npt.NDArray[np.int64]"]


@dataclass(frozen=True)
class FeatureBatch:
    """Features of B captions, padded to the longest; or of B pictures.

    Attributes:
        pooled: the pooled feature (of the end token in CLIP), unit rows, [B, D].
        tokens: each token's or patch's feature, unit rows, [B, L, D], zero at padding.
        mask: True at tokens, False at padding, [B, L]; None without padding.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor | None

    def to(self, device: torch.device) -> FeatureBatch:
        """The batch on a device."""
        mask = None if self.mask is None else self.mask.to(device)
        return FeatureBatch(self.pooled.to(device), self.tokens.to(device), mask)


@dataclass(frozen=True)
class CaptionFeatures:
    """Features of N captions, U of them distinct, with all tokens in one flat array.

    Attributes:
        tokens: float32 or float16, [Σ lengths, D].
        pooled: [U, D].
        offsets: distinct caption u owns tokens offsets[u] to offsets[u + 1], int64 [U + 1].
        places: which distinct caption each caption is, int64 [N].
    """

    tokens: npt.NDArray[np.floating]
    pooled: npt.NDArray[np.floating]
    offsets: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> FeatureBatch:
        """Features of these captions, in fp32 on the CPU."""
        rows = self.places[np.asarray(rows, dtype=np.int64)]
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        place = np.arange(int(lengths.max()))
        mask = place < lengths[:, None]
        flat = np.where(mask, self.offsets[rows][:, None] + place, 0)
        tokens = torch.from_numpy(self.tokens[flat].astype(np.float32, copy=False))
        is_token = torch.from_numpy(mask)
        tokens[~is_token] = 0.0
        pooled = torch.from_numpy(self.pooled[rows].astype(np.float32, copy=False))
        return FeatureBatch(pooled, tokens, is_token)

    def stream(
        self, epoch: int, batches: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[FeatureBatch]:
        """Features of these captions, batch by batch; the same in every epoch."""
        return map(self.batch, batches)


def texts_sha256(texts: Sequence[str]) -> str:
    """SHA-256 over texts in order, each followed by a byte that never occurs in UTF-8."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\xff")
    return digest.hexdigest()


def encode_captions(
    clip: ClipModel,
    texts: Sequence[str],
    cache: Path | None = None,
    precision: str = "fp32",
    progress: Progress | None = None,
    note: Note | None = None,
) -> CaptionFeatures:
    """Encode captions, or read their features from the cache.

    Args:
        texts: captions, at least one; each is cut to the model's context, as in CLIP.
        cache: folder that stores features by model and texts; None keeps them in memory, or in a
            temporary file where they are large.
        precision: "fp32" or "fp16" of stored features; fresh features are rounded in the same
            way, so that a run with a filled cache gives the same numbers.
        progress: called with the number of captions done since the last call.
        note: called with a line about large features before they are computed.
    Raises:
        InputError: no texts, an unknown precision, a cache that cannot be written, or a disk that
            is too small.
    """
    if not texts:
        raise InputError("no captions to encode: the list of texts is empty")
    if precision not in CACHE_PRECISIONS:
        raise InputError(f"feature precision {precision!r}: expected fp32 or fp16")
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    places = np.fromiter(map(numbers.__getitem__, texts), np.int64, len(texts))
    distinct = list(numbers)
    work = _Work(clip, distinct, precision, progress or _ignore, note or _ignore)
    work.progress(len(texts) - len(distinct))
    if cache is None:
        return CaptionFeatures(*work.encode(None), places)
    folder = cache / _cache_key(clip, distinct, precision)
    try:
        if not all((folder / name).is_file() for name in _FILES):
            _fill(work, folder)
        tokens, pooled, offsets = (
            np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _FILES
        )
    except (OSError, ValueError) as error:
        raise InputError(f"feature cache {folder}: {error}; delete it or choose another") from error
    if len(pooled) != len(distinct):
        raise InputError(f"feature cache {folder} is damaged: delete it")
    return CaptionFeatures(tokens, pooled, offsets, places)


def _ignore(_: object) -> None:
    pass


def _cache_key(clip: ClipModel, texts: Sequence[str], precision: str) -> str:
    identity = [_CACHE_FORMAT, clip.name, clip.weights_sha256, precision, texts_sha256(texts)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _TokenNumbers:
    """Token numbers of N texts without their padding.

    Attributes:
        flat: all texts' numbers, one text after the other, int32.
        ends: the position of each text's end token, [N].
        padding: what follows the end in a whole context, [context length].
    """

    flat: Tensor
    ends: Tensor
    padding: Tensor

    @classmethod
    def of(cls, clip: ClipModel, texts: Sequence[str]) -> _TokenNumbers:
        ids, ends = tokenize_texts(clip, texts)
        is_token = torch.arange(ids.shape[1]) <= ends[:, None]
        padding = torch.full_like(ids[0], text_tokenizer(clip).pad)
        return cls(ids[is_token].int(), ends, padding)

    def padded(self) -> Tensor:
        """As `tokenize_texts` gives them, [N, context length]."""
        ids = self.padding.repeat(len(self.ends), 1)
        ids[torch.arange(len(self.padding)) <= self.ends[:, None]] = self.flat.to(ids.dtype)
        return ids


@dataclass(frozen=True)
class _Work:
    """Captions to encode, all of them different."""

    clip: ClipModel
    texts: Sequence[str]
    precision: str
    progress: Progress
    note: Note

    def encode(self, folder: Path | None) -> _Arrays:
        """Tokens, pooled and offsets as of `CaptionFeatures`, the first two in files of a folder.

        Without a folder they are in memory, or in one unnamed file if they are large.
        """
        parts = [
            slice(at, at + _CAPTIONS_A_PART) for at in range(0, len(self.texts), _CAPTIONS_A_PART)
        ]
        # all before the first is encoded: their lengths say how large the features are
        numbers = [_TokenNumbers.of(self.clip, self.texts[part]) for part in parts]
        lengths = np.concatenate([part.ends.numpy() + 1 for part in numbers])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        tokens, pooled = self._allocate(folder, int(offsets[-1]))
        for part, numbers_of_part in zip(parts, numbers, strict=True):
            self._encode_part(part, numbers_of_part, offsets[part], tokens, pooled)
        return tokens, pooled, offsets

    def _encode_part(
        self,
        part: slice,
        numbers: _TokenNumbers,
        starts: npt.NDArray[np.int64],
        tokens: npt.NDArray[np.floating],
        pooled: npt.NDArray[np.floating],
    ) -> None:
        for encoded in token_features(self.clip, numbers.padded(), numbers.ends):
            rows = encoded.rows.numpy()
            pooled[part.start + rows] = encoded.pooled.cpu().numpy()
            place = torch.arange(encoded.tokens.shape[1], device=self.clip.device)
            is_token = place < encoded.lengths[:, None]
            counts = encoded.lengths.cpu().numpy()
            first = np.repeat(starts[rows] - np.cumsum(counts) + counts, counts)
            tokens[first + np.arange(counts.sum())] = encoded.tokens[is_token].cpu().numpy()
            self.progress(len(rows))

    def _allocate(
        self, folder: Path | None, token_count: int
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
        dtype = np.dtype(CACHE_PRECISIONS[self.precision])
        shapes = (token_count, self.clip.embed_dim), (len(self.texts), self.clip.embed_dim)
        size = sum(math.prod(shape) for shape in shapes) * dtype.itemsize
        if folder is None and size <= _MOST_IN_MEMORY:
            return np.empty(shapes[0], dtype), np.empty(shapes[1], dtype)
        self._check_disk(folder or Path(tempfile.gettempdir()), size)
        if folder is not None:
            paths = (folder / name for name in _FILES[:2])
            made = [
                open_memmap(path, "w+", dtype, shape)
                for path, shape in zip(paths, shapes, strict=True)
            ]
            return made[0], made[1]
        # without a name, so that nothing stays behind however the process ends
        with tempfile.TemporaryFile() as file:
            rows = np.memmap(file, dtype, "w+", shape=(token_count + len(self.texts), shapes[0][1]))
        return rows[:token_count], rows[token_count:]

    def _check_disk(self, folder: Path, size: int) -> None:
        free = shutil.disk_usage(folder).free
        need = f"features of {len(self.texts):,} captions take {size / 1e9:.1f} GB"
        if size > free:
            half = "" if self.precision == "fp16" else " --cache-precision fp16 takes half,"
            raise InputError(
                f"{need}, and {folder} has {free / 1e9:.1f} GB free:{half} --cache FOLDER keeps "
                "them on another disk"
            )
        if size > _MOST_IN_MEMORY:
            self.note(f"{need}: they are kept in {folder}, not in memory")


def _fill(work: _Work, folder: Path) -> None:
    """Encode into a temporary folder beside the final one, and rename it at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        *mapped, offsets = work.encode(partial)
        np.save(partial / "offsets.npy", offsets)
        for array in mapped:
            array.flush()  # type: ignore[attr-defined]  # a memmap
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

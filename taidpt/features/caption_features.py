"""Features of captions for tuning: one per token, encoded once and stored without padding."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from taidpt.clip.model import ClipModel
from taidpt.features.prompt_encoder import token_features, tokenize_texts
from taidpt.runtime.errors import InputError

__all__ = ["CACHE_PRECISIONS", "CaptionFeatures", "FeatureBatch", "encode_captions", "texts_sha256"]

CACHE_PRECISIONS = {"fp32": np.float32, "fp16": np.float16}
_CACHE_FORMAT = 1
_FILES = ("tokens.npy", "pooled.npy", "offsets.npy")

Progress = Callable[[int], None]


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
    """Features of N captions, with all tokens in one flat array.

    Attributes:
        tokens: float32 or float16, [Σ lengths, D].
        pooled: [N, D].
        offsets: caption i owns tokens offsets[i] to offsets[i + 1], int64 [N + 1].
    """

    tokens: npt.NDArray[np.floating]
    pooled: npt.NDArray[np.floating]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pooled)

    def batch(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> FeatureBatch:
        """Features of these captions, in fp32 on the CPU."""
        rows = np.asarray(rows, dtype=np.int64)
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
) -> CaptionFeatures:
    """Encode captions, or read their features from the cache.

    Args:
        texts: captions, at least one; each is cut to the model's context, as in CLIP.
        cache: folder that stores features by model and texts; None keeps them in memory.
        precision: "fp32" or "fp16" of stored features; fresh features are rounded in the same
            way, so that a run with a filled cache gives the same numbers.
        progress: called with the number of captions done since the last call.
    Raises:
        InputError: no texts, an unknown precision, a cache that cannot be written.
    """
    if not texts:
        raise InputError("no captions to encode: the list of texts is empty")
    if precision not in CACHE_PRECISIONS:
        raise InputError(f"feature precision {precision!r}: expected fp32 or fp16")
    if cache is None:
        return _encode(clip, texts, precision, None, progress)
    folder = cache / _cache_key(clip, texts, precision)
    try:
        if not all((folder / name).is_file() for name in _FILES):
            _fill(clip, texts, precision, folder, progress)
        arrays = (np.load(folder / name, mmap_mode="r", allow_pickle=False) for name in _FILES)
        features = CaptionFeatures(*arrays)
    except (OSError, ValueError) as error:
        raise InputError(f"feature cache {folder}: {error}; delete it or choose another") from error
    if len(features) != len(texts):
        raise InputError(f"feature cache {folder} is damaged: delete it")
    return features


def _cache_key(clip: ClipModel, texts: Sequence[str], precision: str) -> str:
    identity = [_CACHE_FORMAT, clip.name, clip.weights_sha256, precision, texts_sha256(texts)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _fill(
    clip: ClipModel,
    texts: Sequence[str],
    precision: str,
    folder: Path,
    progress: Progress | None,
) -> None:
    """Encode into a temporary folder beside the final one, and rename it at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        features = _encode(clip, texts, precision, partial, progress)
        np.save(partial / "offsets.npy", features.offsets)
        for array in (features.tokens, features.pooled):
            if isinstance(array, np.memmap):
                array.flush()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _encode(
    clip: ClipModel,
    texts: Sequence[str],
    precision: str,
    folder: Path | None,
    progress: Progress | None,
) -> CaptionFeatures:
    ids, ends = tokenize_texts(clip, texts)
    offsets = np.concatenate([[0], np.cumsum(ends.numpy() + 1)]).astype(np.int64)
    dtype = CACHE_PRECISIONS[precision]
    tokens = _allocate(folder, "tokens.npy", (int(offsets[-1]), clip.embed_dim), dtype)
    pooled = _allocate(folder, "pooled.npy", (len(texts), clip.embed_dim), dtype)
    for part in token_features(clip, ids, ends):
        rows = part.rows.numpy()
        pooled[rows] = part.pooled.cpu().numpy()
        is_token = torch.arange(part.tokens.shape[1], device=clip.device) < part.lengths[:, None]
        counts = part.lengths.cpu().numpy()
        first = np.repeat(offsets[rows] - np.cumsum(counts) + counts, counts)
        tokens[first + np.arange(counts.sum())] = part.tokens[is_token].cpu().numpy()
        if progress is not None:
            progress(len(rows))
    return CaptionFeatures(tokens, pooled, offsets)


def _allocate(
    folder: Path | None, name: str, shape: tuple[int, int], dtype: type[np.floating]
) -> npt.NDArray[np.floating]:
    if folder is None:
        return np.empty(shape, dtype)
    array: npt.NDArray[np.floating] = np.lib.format.open_memmap(
        folder / name, mode="w+", dtype=dtype, shape=shape
    )
    return array

"""Texts in the joint space: class embeddings of prompts or templates, captions token by token.

Four accelerations that give the same result as encoding whole prompts (section 5 of the method):
- in a causal tower nothing after the end token matters, so prompts and captions are cut there;
- the shared beginning of all prompts (start and context vectors) is encoded once per context; its
  keys and values are used by every class, so that only name tokens are computed per class;
- the last block, norm and projection are computed for end tokens only;
- captions never change, so they are encoded once.
Towers that are not causal, or built of other blocks, encode whole prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from taidpt.clip.attention_block import attend, close_block, join_heads, queries_keys_values
from taidpt.clip.model import ClipModel
from taidpt.clip.text_tower import TextTower, text_tower
from taidpt.clip.tokenizers import text_tokenizer
from taidpt.prompts.tokens import PromptTokens, tokenize_prompts
from taidpt.runtime.errors import InputError

__all__ = [
    "EncodedTexts",
    "PromptEncoder",
    "class_embeddings",
    "encode_texts",
    "plain_class_embeddings",
    "token_features",
    "tokenize_texts",
]

# Name tokens computed at once. More are cut into parts of a quarter of this, which recompute their
# forward pass in the backward pass, so that 5,000 tags need less memory than 8,192 tokens at once.
_TOKENS_A_PART = 8192
# Captions encoded at once, in order of length, which bounds memory.
_TEXTS_A_BATCH = 256

Prefix = list[tuple[Tensor, Tensor]]


class PromptEncoder:
    """Context vectors → class embeddings, for a fixed list of tags; differentiable.

    Args:
        clip: a frozen CLIP.
        tokens: the prompts' layout.
    """

    def __init__(self, clip: ClipModel, tokens: PromptTokens) -> None:
        self._tower = text_tower(clip)
        self._tokens = tokens
        self._tokens_a_part = _TOKENS_A_PART
        order = torch.argsort(tokens.ends, stable=True)
        self._order, self._place = order, torch.argsort(order)
        self._ids, self._ends = tokens.ids[order], tokens.ends[order]

    def __len__(self) -> int:
        """C, the number of tags."""
        return len(self._tokens)

    @property
    def width(self) -> int:
        """W, the length of a context vector."""
        return self._tower.width

    @property
    def device(self) -> torch.device:
        """Where contexts should be."""
        return self._tower.positions.device

    def __call__(self, contexts: Sequence[Tensor]) -> list[Tensor]:
        """Embed every tag with each context.

        Args:
            contexts: each [n, W], shared by all tags, or [C, n, W], one per tag.
        Returns:
            unit rows [C, D] for each context.
        """
        shared = [context.dim() == 2 for context in contexts]
        if self._tower.shares_prefix and self._tokens.shared and all(shared):
            found = self._by_prefix(torch.stack(list(contexts)))
        else:
            found = torch.stack([self._plainly(context) for context in contexts])
        # fp32 even under autocast: scores depend on small differences of these rows
        return list(F.normalize(found[:, self._place].float(), dim=-1))

    def _by_prefix(self, contexts: Tensor) -> Tensor:
        """Contexts [G, n, W] → embeddings [G, C, D], classes in order of length."""
        prefix = self._run_prefix(contexts)
        flat = [part for pair in prefix for part in pair]

        def embed(low: int, high: int, contexts: Tensor, *flat: Tensor) -> Tensor:
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            return self._run_names(pairs, contexts, low, high)

        return _in_parts(embed, self._parts(self._ends - self._tokens.shared + 1), contexts, *flat)

    def _run_prefix(self, contexts: Tensor) -> Prefix:
        """Keys and values of the shared beginning in every block, [G, P, W] each."""
        tower, shared = self._tower, self._tokens.shared
        x = _embed(tower, self._ids[:1, :shared], contexts) + tower.positions[:shared]
        x = x[:, 0]
        assert tower.mask is not None
        mask = tower.mask[:shared, :shared]
        pairs: Prefix = []
        *body, last = tower.transformer.resblocks
        for block in body:
            query, key, value = queries_keys_values(block, x)
            pairs.append((key, value))
            x = close_block(block, x, attend(block, query, key, value, mask))
        pairs.append(queries_keys_values(last, x)[1:])
        return pairs

    def _run_names(self, prefix: Prefix, contexts: Tensor, low: int, high: int) -> Tensor:
        """Embeddings [G, high − low, D] of a run of classes; their tokens form one flat row."""
        tower, shared = self._tower, self._tokens.shared
        spans = _equal_lengths((self._ends[low:high] + 1 - shared).tolist())
        ids, positions = [], []
        for start, stop, length in spans:
            ids.append(self._ids[low + start : low + stop, shared : shared + length].reshape(-1))
            positions.append(tower.positions[shared : shared + length].repeat(stop - start, 1))
        x = _embed(tower, torch.cat(ids)[None], contexts)[:, 0] + torch.cat(positions)
        *body, last = tower.transformer.resblocks
        for block, pair in zip(body, prefix, strict=False):
            x = close_block(block, x, _attend_spans(block, x, pair, spans, ends_only=False))
        ends = _end_rows(spans, x.device)
        x = close_block(last, x[:, ends], _attend_spans(last, x, prefix[-1], spans, ends_only=True))
        return tower.project(torch.as_tensor(tower.ln_final(x)))

    def _plainly(self, context: Tensor) -> Tensor:
        """Embeddings [C, D] of whole prompts, cut at the last end token where that is exact."""
        tower = self._tower
        width = self._ids.shape[1] if tower.is_causal else len(tower.positions)
        ids = F.pad(self._ids, (0, width - self._ids.shape[1]), value=self._tokens.pad)
        own = context.dim() == 3
        context = context[self._order] if own else context

        def embed(low: int, high: int, context: Tensor) -> Tensor:
            rows = context[low:high] if own else context
            length = int(self._ends[low:high].max()) + 1 if tower.is_causal else width
            x = _embed(tower, ids[low:high, :length], rows[None])[0] + tower.positions[:length]
            place = tower.pooled_positions(self._ends[low:high], length)
            hidden = tower.run(x)[torch.arange(high - low, device=x.device), place]
            return tower.project(hidden)[None]

        return _in_parts(embed, self._parts(torch.full_like(self._ends, width)), context)[0]

    def _parts(self, lengths: Tensor) -> list[tuple[int, int]]:
        """One run of all classes where they are few, else runs of a quarter of the limit."""
        most = self._tokens_a_part
        if int(lengths.sum()) > most:  # recomputed anyway, so small parts cost nothing
            most = max(1, most // 4)
        parts, low, total = [], 0, 0
        for index, length in enumerate(lengths.tolist()):
            if total + length > most and index > low:
                parts.append((low, index))
                low, total = index, 0
            total += length
        return [*parts, (low, len(lengths))]


def _in_parts(
    embed: Callable[..., Tensor], parts: list[tuple[int, int]], *inputs: Tensor
) -> Tensor:
    """Embed part by part, [G, C, D]; several parts recompute their forward pass."""
    if len(parts) == 1:
        return embed(*parts[0], *inputs)
    found = [checkpoint(embed, low, high, *inputs, use_reentrant=False) for low, high in parts]
    return torch.cat(found, dim=1)


def _embed(tower: TextTower, ids: Tensor, contexts: Tensor) -> Tensor:
    """Token vectors without positions.

    Args:
        ids: [N, L]; −1 − j is context vector j.
        contexts: shared [G, n, W], or one per row [1, N, n, W].
    Returns:
        [G, N, L, W].
    """
    words: Tensor = tower.token_embedding(ids.clamp(min=0))
    if not bool((ids < 0).any()):
        return words.expand(len(contexts), *words.shape)
    slots = (-1 - ids).clamp(min=0)
    if contexts.dim() == 4:
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        vectors = contexts[:, rows, slots]
    else:
        vectors = contexts[:, slots]
    return torch.where((ids < 0)[..., None], vectors, words)


def _equal_lengths(lengths: list[int]) -> list[tuple[int, int, int]]:
    """Runs (start, stop, length) of equal values in a sorted list."""
    spans, start = [], 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or lengths[index] != lengths[start]:
            spans.append((start, index, lengths[start]))
            start = index
    return spans


def _end_rows(spans: list[tuple[int, int, int]], device: torch.device) -> Tensor:
    """Positions of the end tokens in the flat row."""
    rows, offset = [], 0
    for start, stop, length in spans:
        count = stop - start
        rows.append(torch.arange(1, count + 1, device=device) * length + (offset - 1))
        offset += count * length
    return torch.cat(rows)


def _attend_spans(
    block: Any,
    x: Tensor,
    prefix: tuple[Tensor, Tensor],
    spans: list[tuple[int, int, int]],
    ends_only: bool,
) -> Tensor:
    """Attention of name tokens [G, T, W] over the shared beginning and their own class.

    Returns:
        [G, T, W], or [G, C, W] with `ends_only`; before the output projection.
    """
    query, key, value = queries_keys_values(block, x)
    found, offset = [], 0
    for start, stop, length in spans:
        rows = slice(offset, offset + (stop - start) * length)
        shape = (len(x), stop - start, length, -1)
        own = [part[:, rows].reshape(shape) for part in (query, key, value)]
        if ends_only:
            own[0] = own[0][:, :, -1:]
        found.append(_attend_shared(block.attn.num_heads, own, prefix).flatten(1, 2))
        offset = rows.stop
    return torch.cat(found, dim=1)


def _attend_shared(heads: int, own: list[Tensor], prefix: tuple[Tensor, Tensor]) -> Tensor:
    """Causal attention of [G, C, S, W] over a beginning [G, P, W] shared by all C.

    The beginning's logits are one product for all classes instead of C copies of its keys.
    """
    query, key, value = (_heads(part, heads) for part in own)  # [G, h, C, S, d]
    first_key, first_value = (_heads(part, heads) for part in prefix)  # [G, h, P, d]
    queries = query.shape[3]
    query = query * query.shape[-1] ** -0.5
    shape = (*query.shape[:4], -1)
    first = (query.flatten(2, 3) @ first_key.transpose(-1, -2)).reshape(shape)
    second = query @ key.transpose(-1, -2)
    if queries > 1:  # a single one is the end token, which attends to its whole class
        later = torch.ones(queries, queries, dtype=torch.bool, device=query.device).triu(1)
        second = second.masked_fill(later, float("-inf"))
    weights = torch.cat([first, second], dim=-1).softmax(dim=-1)
    before, among = weights[..., : first.shape[-1]], weights[..., first.shape[-1] :]
    mixed = (before.flatten(2, 3) @ first_value).reshape(shape) + among @ value
    return join_heads(mixed.transpose(1, 2))


def _heads(x: Tensor, heads: int) -> Tensor:
    """[G, …, L, W] → [G, h, …, L, d]."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).movedim(-2, 1)


def class_embeddings(
    clip: ClipModel,
    names: Sequence[str],
    contexts: Mapping[str, Tensor],
    name_position: str = "end",
) -> dict[str, Tensor]:
    """Class embeddings of tuned prompts.

    Args:
        names: C tag names.
        contexts: name ("global", "local") → [n, W] or [C, n, W].
        name_position: position of the tag's name in its prompt.
    Returns:
        name → unit rows [C, D].
    """
    lengths = {context.shape[-2] for context in contexts.values()}
    if len(lengths) != 1:
        raise InputError(f"contexts of different length {sorted(lengths)} in one set of prompts")
    tokens = tokenize_prompts(clip, names, lengths.pop(), name_position)
    with torch.no_grad():
        found = PromptEncoder(clip, tokens)([value.to(clip.device) for value in contexts.values()])
    return dict(zip(contexts, found, strict=True))


def plain_class_embeddings(
    clip: ClipModel, names: Sequence[str], templates: Sequence[str]
) -> Tensor:
    """Class embeddings from templates with `{}` for the name, averaged over templates.

    As in CLIP's prompt ensembling, each text's feature is normalised, and then their mean.

    Returns:
        unit rows, [C, D].
    """
    if not templates or any("{}" not in template for template in templates):
        raise InputError("templates: expected at least one, each with {} where the name goes")
    texts = [template.replace("{}", name) for name in names for template in templates]
    features = encode_texts(clip, texts).reshape(len(names), len(templates), -1)
    return F.normalize(features.mean(dim=1), dim=-1)


def encode_texts(clip: ClipModel, texts: Sequence[str]) -> Tensor:
    """CLIP's own text features, unit rows [N, D]."""
    found = torch.empty(len(texts), clip.embed_dim, device=clip.device)
    for part in token_features(clip, *tokenize_texts(clip, texts)):
        found[part.rows] = part.pooled
    return found


def tokenize_texts(clip: ClipModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token numbers [N, context length], and the position of each text's end token, [N].

    Raises:
        InputError: no texts, or an unsupported tokenizer.
    """
    if not texts:
        raise InputError("no texts to encode: the list is empty")
    return text_tokenizer(clip).whole(texts)


class EncodedTexts(NamedTuple):
    """One batch of texts in the joint space.

    Attributes:
        rows: which texts these are, [B].
        pooled: their features, unit rows, [B, D].
        tokens: every token's feature, unit rows, [B, L, D]; undefined from `lengths` on.
        lengths: tokens of each text, start and end included, [B].
    """

    rows: Tensor
    pooled: Tensor
    tokens: Tensor
    lengths: Tensor


def token_features(clip: ClipModel, ids: Tensor, ends: Tensor) -> Iterator[EncodedTexts]:
    """Encode tokenised texts in batches of similar length, every token of them."""
    tower = text_tower(clip)
    for rows in torch.split(torch.argsort(ends, stable=True), _TEXTS_A_BATCH):
        longest = int(ends[rows].max()) + 1
        length = longest if tower.is_causal else len(tower.positions)
        batch, last = ids[rows, :length].to(clip.device), ends[rows].to(clip.device)
        with torch.no_grad():
            x = tower.token_embedding(batch) + tower.positions[:length]
            features = F.normalize(tower.project(tower.run(x)), dim=-1)
        place = tower.pooled_positions(last, length)
        pooled = features[torch.arange(len(rows), device=clip.device), place]
        yield EncodedTexts(rows, pooled, features[:, :longest], last + 1)

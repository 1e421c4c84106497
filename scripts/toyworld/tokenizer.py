"""The toy model's tokenizer: open_clip's, with a reduced list of byte-pair merges.

All 512 byte tokens are kept, so any text tokenises. Of OpenAI CLIP's 48,894 merges, the most
frequent ones and those that spell the toy world's words are kept. Each of these words has the same
tokens as under the full list, and the embedding table is about thirty times smaller.
"""

from __future__ import annotations

import gzip
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.toyworld import captions
from scripts.toyworld.drawing.backgrounds import COLOURS
from scripts.toyworld.drawing.things import THINGS
from taidpt.toyworld import assets

__all__ = ["COMMON_MERGES", "load_tokenizer", "vocabulary", "write_merges"]

COMMON_MERGES = 1500
"""Number of most frequent merges kept for words outside the toy world."""

# The other COCO names, words common in captions, and the words of the 80 ImageNet templates: each
# keeps a token of its own although the model never saw most of them.
_NEIGHBOURS = """
tie bowl mouse oven microwave toaster sink refrigerator hair drier remote fork snowboard surfboard
tennis racket baseball bat glove parking meter fire hydrant bench dining table animal vehicle fruit
food furniture toy tool street road kitchen bathroom living room office garden beach field park sky
water grass tree flower house building boy girl child children baby people woman men women lady guy
group crowd rider player driver plate glass wine coffee tea milk bread cheese meat tomato potato
lemon grape egg fish lion tiger monkey rabbit pig goat chicken wolf fox snake frog wheel door window
wall floor roof bridge river lake mountain snow sand fire light lamp phone computer screen camera
picture photo image painting sculpture rendering graffiti tattoo embroidered cropped pixelated
bright dark clean dirty weird cool hard see low resolution jpeg corrupted doodle plastic plushie
cartoon art origami sketch video game rendition black white close up down large small itap nice good
bad blurry drawing one many the this that there is are was were of in on at by for with from and or
not no two three four five six seven eight nine ten standing sitting walking running riding holding
eating playing lying flying looking wearing driving next front behind under over between near top
left right side middle corner full empty old new young big little long short tall red green blue
yellow purple pink brown orange grey gray beige turquoise golden silver wooden metal stone
my shows drew has
"""


def vocabulary() -> list[str]:
    """Every word of the toy world's captions and tags, and their neighbours; sorted."""
    texts: list[str] = [_NEIGHBOURS, *COLOURS, *captions.wording_words()]
    for thing in THINGS:
        texts += [thing.name, *thing.synonyms]
        texts += [form for word in thing.words for form in (word.singular, word.plural)]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})


def _applied(word: str, ranks: dict[tuple[str, str], int]) -> set[int]:
    """Ranks of the merges that byte-pair encoding applies to a lower-case ASCII word."""
    parts = [*word[:-1], word[-1] + "</w>"]
    used: set[int] = set()
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        rank, pair = min((ranks.get(pair, len(ranks)), pair) for pair in pairs)
        if rank == len(ranks):
            break
        used.add(rank)
        merged: list[str] = []
        for part in parts:
            if merged and (merged[-1], part) == pair:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return used


def _full_merges() -> list[tuple[str, str]]:
    from open_clip.tokenizer import default_bpe

    with gzip.open(default_bpe()) as packed:
        lines = packed.read().decode("utf-8").split("\n")
    pairs = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    return [(first, second) for first, second in pairs]


def write_merges(target: Path, words: Iterable[str]) -> int:
    """Write the reduced merges file; return its number of merges.

    Args:
        target: a `.txt.gz` path.
        words: lower-case ASCII words that must keep their tokens.
    """
    merges = _full_merges()
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    kept = set(range(COMMON_MERGES))
    for word in words:
        kept |= _applied(word, ranks)
    lines = ["#version: toy world cut of OpenAI CLIP's merges"]
    lines += [" ".join(merges[rank]) for rank in sorted(kept)]
    # No newline at the end, which open_clip would read as an empty merge, and no time stamp.
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write("\n".join(lines).encode("utf-8"))
    return len(kept)


def load_tokenizer(merges: Path | None = None, context_length: int = 77) -> Any:
    """open_clip's `SimpleTokenizer` over the shipped merges, or over another merges file."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(
        str(merges or assets.path("merges.txt.gz")), context_length=context_length
    )

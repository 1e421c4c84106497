"""Which background nouns a model can tell from the tags: those that mean something else."""

from __future__ import annotations

from collections.abc import Sequence

from taidpt.clip.model import ClipModel
from taidpt.features.prompt_encoder import plain_class_embeddings
from taidpt.texts.tags import Tag
from taidpt.texts.templates import PLAIN_TEMPLATE

__all__ = ["unrelated"]

# A noun closer to a tag than this many standard deviations above that tag's mean similarity to all
# nouns is taken for a synonym or a kind of it ("dog" for the tag "puppy"). Of unrelated nouns one
# in fifty is lost, which leaves enough.
_DEVIATIONS = 2.0


def unrelated(clip: ClipModel, tags: Sequence[Tag], nouns: Sequence[Tag]) -> list[int]:
    """Indices of the nouns that are not close to a tag in the model's own text features.

    Args:
        clip: a frozen CLIP.
        tags: C tags.
        nouns: B background tags.
    """
    if not nouns:
        return []
    names = [tag.name for tag in (*tags, *nouns)]
    rows = plain_class_embeddings(clip, names, (PLAIN_TEMPLATE,))
    similarity = rows[: len(tags)] @ rows[len(tags) :].T  # [C, B]
    spread = similarity.std(dim=1, keepdim=True, correction=0)
    close = similarity > similarity.mean(dim=1, keepdim=True) + _DEVIATIONS * spread
    return (~close.any(dim=0)).nonzero().flatten().tolist()

"""Labels from texts: which tags a text names, and a report of it.

Source: section 3.2 of Guo et al. 2023 and the authors' practice: lower-case, lemmatise every word,
match the longest names first, and take a name out of the text once found, so that "hot dog" is
never a dog. The authors' order among equally long names varies from run to run; ours does not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from taidpt.runtime.errors import InputError
from taidpt.runtime.optional import optional_packages
from taidpt.texts.tags import TagSet

__all__ = ["LabelReport", "TextLabeler", "balance_texts", "label_texts"]

_TOKEN = re.compile(r"[^\W_]+|[^\w\s]")
_POSSESSIVE = re.compile(r"['’]s?\b|['’]")
_EXAMPLES = 3

# Where simplemma's table picks the rarer word: nobody skies, and "bare" is no old past of "bear".
_EXCEPTIONS = {"skies": "sky", "bare": "bare"}

LabelledText = tuple[str, tuple[int, ...]]


class TextLabeler:
    """Finds the tags that a text names.

    Args:
        tags: C tags with their synonyms.
    Raises:
        InputError: two tags read the same once lemmatised ("glass" and "glasses").
        MissingDependencyError: simplemma is not installed.
    """

    def __init__(self, tags: TagSet) -> None:
        self._lemmas: dict[str, str] = dict(_EXCEPTIONS)
        self._lemmatize = _load_lemmatizer()
        self._names: dict[tuple[str, ...], int] = {}
        for index, tag in enumerate(tags):
            for word in tag.words:
                self._add(self._tokens(word), index, tags)
        # "motorcycle" names what "motor cycle" names, unless the list says otherwise.
        for tokens, index in list(self._names.items()):
            if len(tokens) > 1:
                self._names.setdefault(("".join(tokens),), index)
        self._lengths = sorted({len(tokens) for tokens in self._names}, reverse=True)
        self._firsts = {tokens[0] for tokens in self._names}

    def labels(self, text: str) -> tuple[int, ...]:
        """The tags that a text names, as ascending indices."""
        tokens: list[str | None] = list(self._tokens(text))
        starts = [start for start, token in enumerate(tokens) if token in self._firsts]
        found = set()
        for length in self._lengths if starts else ():
            for start in starts:
                name = tuple(tokens[start : start + length])
                index = self._names.get(name)  # type: ignore[arg-type]
                # At the end of the text a slice is shorter: its turn comes.
                if index is not None and len(name) == length:
                    found.add(index)
                    # A gap, not a join: the neighbours of what was found stay apart.
                    tokens[start : start + length] = [None] * length
        return tuple(sorted(found))

    def _add(self, tokens: tuple[str, ...], index: int, tags: TagSet) -> None:
        other = self._names.setdefault(tokens, index)
        if other != index:
            first, second = tags.tags[other].name, tags.tags[index].name
            raise InputError(
                f"{tags.source}: the tags {first!r} and {second!r} read the same in a text "
                f"({' '.join(tokens)!r}); merge them or make one a synonym of the other"
            )

    def _tokens(self, text: str) -> tuple[str, ...]:
        text = text.lower()
        if "'" in text or "’" in text:
            text = _POSSESSIVE.sub("", text)
        lemmas = self._lemmas
        return tuple(
            lemmas.get(word) or self._lemma(word) for word in _TOKEN.findall(text) if word != "-"
        )

    def _lemma(self, word: str) -> str:
        lemma = self._lemmatize(word).lower()
        self._lemmas[word] = lemma
        return lemma


def _load_lemmatizer() -> Callable[[str], str]:
    with optional_packages("labelling texts", "tune"):
        import simplemma
    return functools.partial(simplemma.lemmatize, lang="en")


@dataclass
class LabelReport:
    """What a file of texts says about each tag; filled by `label_texts`.

    Attributes:
        tags: the tags.
        counts: how many texts name each tag.
        examples: the first few texts that name each tag.
        texts: how many texts were read.
        unnamed: how many of them name no tag.
    """

    tags: TagSet
    counts: list[int] = field(init=False)
    examples: list[list[str]] = field(init=False)
    texts: int = 0
    unnamed: int = 0

    def __post_init__(self) -> None:
        self.counts = [0] * len(self.tags)
        self.examples = [[] for _ in self.tags]

    def add(self, text: str, labels: Sequence[int]) -> None:
        """Count one text."""
        self.texts += 1
        self.unnamed += not labels
        for index in labels:
            self.counts[index] += 1
            if len(self.examples[index]) < _EXAMPLES:
                self.examples[index].append(text)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tags that no text names."""
        return tuple(
            tag.name for tag, count in zip(self.tags, self.counts, strict=True) if not count
        )

    def lines(self, examples: int = 1) -> Iterator[str]:
        """The report for a reader: a summary, a line a tag (most named first), then a warning.

        Args:
            examples: how many texts to show a tag, at most three.
        """
        labelled = self.texts - self.unnamed
        share = 100 * labelled / self.texts if self.texts else 0.0
        yield (
            f"{self.texts:,} texts, {labelled:,} ({share:.1f} %) name at least one of "
            f"{len(self.tags)} tags"
        )
        width = max(len(name) for name in self.tags.names)
        order = sorted(range(len(self.tags)), key=lambda index: (-self.counts[index], index))
        for index in order:
            name, count = self.tags.names[index], self.counts[index]
            shown = [_shortened(text) for text in self.examples[index][:examples]]
            yield f"  {name:<{width}}  {count:>9,}  {shown[0] if shown else ''}".rstrip()
            for text in shown[1:]:
                yield f"  {'':<{width}}  {'':>9}  {text}"
        if self.missing:
            yield self.warning()

    def warning(self) -> str:
        """One line about the tags that no text names; empty when there is none."""
        if not self.missing:
            return ""
        few = ", ".join(self.missing[:10]) + (", …" if len(self.missing) > 10 else "")
        return (
            f"warning: no text names {len(self.missing)} of {len(self.tags)} tags ({few}); only "
            "templates will speak for them: add synonyms, or texts that name them"
        )


def label_texts(
    texts: Iterable[str], tags: TagSet, report: LabelReport | None = None
) -> Iterator[LabelledText]:
    """Stream the texts that name at least one tag, with their labels.

    Args:
        texts: any number of texts.
        tags: C tags.
        report: filled while streaming.
    Returns:
        Pairs of text and labels, ascending indices into the tags.
    """
    labeler = TextLabeler(tags)
    for text in texts:
        labels = labeler.labels(text)
        if report is not None:
            report.add(text, labels)
        if labels:
            yield text, labels


def balance_texts(
    texts: Sequence[LabelledText], classes: int, limit: int = 1000
) -> list[LabelledText]:
    """Keep at most `limit` texts a class, as the authors did for NUS-WIDE.

    Each text counts for the rarest of its classes alone (the first of equally rare ones); the first
    `limit` of each class are kept, in file order, with all their labels.

    Args:
        texts: labelled texts.
        classes: how many classes there are.
        limit: texts a class.
    """
    frequency = [0] * classes
    for _, labels in texts:
        for index in labels:
            frequency[index] += 1
    taken = [0] * classes
    kept = []
    for text, labels in texts:
        rarest = min(labels, key=lambda index: (frequency[index], index))
        if taken[rarest] < limit:
            taken[rarest] += 1
            kept.append((text, labels))
    return kept


def _shortened(text: str, width: int = 72) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"

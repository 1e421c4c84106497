"""Labels from texts: which tags a text names, and a report of it.

Source: section 3.2 of Guo et al. 2023 and the authors' practice: lower-case, lemmatise every word,
match the longest names first, and remove a matched name from the text, so that "hot dog" never sets
"dog". The authors' order among equally long names varies from run to run; here it is fixed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from taidpt.runtime.errors import InputError
from taidpt.texts.lemmas import load_lemmatizer, plurals
from taidpt.texts.negation import is_negated, names_negation
from taidpt.texts.quoting import listed, quoted, shortened
from taidpt.texts.tags import TagSet

__all__ = ["LabelReport", "TextLabeler", "balance_texts", "label_texts"]

# Characters of scripts without spaces between words (Thai and Lao, Burmese, Khmer, kana, Han) are
# words of their own; a name of several characters then matches wherever they follow each other.
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+|[^\w\s]")
_POSSESSIVE = re.compile(r"['’]s?\b|['’]")
# The hyphen-minus, the hyphen, the non-breaking hyphen and the en dash.
_HYPHENS = "-\u2010\u2011\u2013"
_HYPHENS_TO_SPACES = str.maketrans(dict.fromkeys(_HYPHENS, " "))
_FREE = re.compile(rf"(\w+)[{_HYPHENS}]free\b")
_EXAMPLES = 3  # texts that a report keeps for each tag

LabelledText = tuple[str, tuple[int, ...]]


class TextLabeler:
    """Finds the tags that a text names.

    Args:
        tags: C tags with their synonyms.
    Raises:
        InputError: tags that read the same once lemmatised ("glass" and "glasses").
        MissingDependencyError: simplemma is not installed.
    """

    def __init__(self, tags: TagSet) -> None:
        self._lemmas: dict[str, str] = {}
        self._lemmatize = load_lemmatizer()
        self._names: dict[tuple[str, ...], int] = {}
        names = [(_words(word), index) for index, tag in enumerate(tags) for word in tag.words]
        self._add_names(names, tags)
        # "motorcycle" names what "motor cycle" names, unless the list says otherwise.
        for lemmas, index in list(self._names.items()):
            if len(lemmas) > 1:
                self._names.setdefault(("".join(lemmas),), index)
        self._add_plurals(names)
        self._lengths = sorted({len(lemmas) for lemmas in self._names}, reverse=True)
        self._firsts = {lemmas[0] for lemmas in self._names}

    @property
    def names(self) -> Collection[tuple[str, ...]]:
        """The dictionary forms of every name and synonym."""
        return self._names.keys()

    def lemmas(self, text: str) -> list[str]:
        """The dictionary forms of a text's words."""
        return [self._lemma(word) for word in _words(text)]

    def labels(self, text: str) -> tuple[int, ...]:
        """The tags that a text names, as ascending indices; negated names do not count."""
        words = _words(text)
        lemmas: list[str | None] = [self._lemma(word) for word in words]
        starts = [start for start, lemma in enumerate(lemmas) if lemma in self._firsts]
        matches: dict[int, tuple[int, int]] = {}  # end → start, tag
        for length in self._lengths if starts else ():
            for start in starts:
                name = tuple(lemmas[start : start + length])
                index = self._names.get(name)  # type: ignore[arg-type]
                # At the end of the text the slice is shorter; its own length follows later.
                if index is not None and len(name) == length:
                    matches[start + length] = start, index
                    # A gap, so that the words on both sides do not become neighbours.
                    lemmas[start : start + length] = [None] * length
        if matches and names_negation(words):
            ends = {end: start for end, (start, _) in matches.items()}
            kept = (tag for start, tag in matches.values() if not is_negated(words, start, ends))
            return tuple(sorted(set(kept)))
        return tuple(sorted({tag for _, tag in matches.values()}))

    def _add_names(self, names: Sequence[tuple[list[str], int]], tags: TagSet) -> None:
        clashes: dict[tuple[int, int], str] = {}
        for words, index in names:
            lemmas = tuple(map(self._lemma, words))
            other = self._names.setdefault(lemmas, index)
            if other != index:
                pair = f"{quoted(tags.names[other])} and {quoted(tags.names[index])}"
                clashes.setdefault((other, index), f"{pair} ({quoted(' '.join(lemmas))})")
        if clashes:
            raise InputError(
                f"{tags.source}: tags that read the same in a text: {listed(clashes.values())}; "
                "merge each pair, or make one a synonym of the other"
            )

    def _add_plurals(self, names: Sequence[tuple[list[str], int]]) -> None:
        """Give the plural of every name its lemma: the lemmatiser lacks or misreads some."""
        for words, _ in names:
            lemmas = [self._lemma(word) for word in words]
            joined = "".join(lemmas)
            for word, lemma in ((words[-1], lemmas[-1]), (joined, joined)):
                for plural in plurals(word):
                    self._lemmas.setdefault(plural, lemma)

    def _lemma(self, word: str) -> str:
        if word not in self._lemmas:
            self._lemmas[word] = self._lemmatize(word)
        return self._lemmas[word]


def _words(text: str) -> list[str]:
    """Lower-case words and punctuation marks; a hyphen separates words as a space does."""
    text = unicodedata.normalize("NFC", text.lower())
    if "free" in text:
        text = _FREE.sub(r"no \1 ,", text)
    text = text.translate(_HYPHENS_TO_SPACES)
    if "'" in text or "’" in text:
        text = _POSSESSIVE.sub("", text)
    return _TOKEN.findall(text)


@dataclass
class LabelReport:
    """Statistics of the tags that texts name; filled by `label_texts`.

    Attributes:
        tags: the tags.
        counts: number of texts that name each tag.
        examples: the first few texts that name each tag.
        texts: number of texts read.
        unnamed: number of texts that name no tag.
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
        """Lines to print: a summary, a line for each tag (most named first), then a warning.

        Args:
            examples: texts shown for each tag, at most three.
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
            shown = [shortened(text) for text in self.examples[index][:examples]]
            yield f"  {name:<{width}}  {count:>9,}  {shown[0] if shown else ''}".rstrip()
            for text in shown[1:]:
                yield f"  {'':<{width}}  {'':>9}  {text}"
        if self.missing:
            yield self.warning()

    def warning(self) -> str:
        """One line about the tags that no text names; empty when there is none."""
        if not self.missing:
            return ""
        return (
            f"warning: no text names {len(self.missing)} of {len(self.tags)} tags "
            f"({listed(self.missing)}), which are tuned on templates alone: add synonyms, or "
            "texts that name them"
        )


def label_texts(
    texts: Iterable[str], tags: TagSet, report: LabelReport | None = None
) -> Iterator[LabelledText]:
    """Stream the texts that name at least one tag, with their labels.

    Args:
        texts: any number of texts.
        tags: C tags.
        report: receives the statistics while streaming.
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
    """Keep at most `limit` texts per class, as the authors did for NUS-WIDE.

    Each text counts only for its rarest class (the first of equally rare ones). The first `limit`
    texts of each class are kept, in file order, with all their labels.

    Args:
        texts: labelled texts.
        classes: number of classes.
        limit: texts per class.
    """
    frequency = [0] * classes
    for _, labels in texts:
        for index in labels:
            frequency[index] += 1
    used = [0] * classes
    kept = []
    for text, labels in texts:
        rarest = min(labels, key=lambda index: (frequency[index], index))
        if used[rarest] < limit:
            used[rarest] += 1
            kept.append((text, labels))
    return kept

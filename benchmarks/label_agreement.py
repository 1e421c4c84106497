"""How far labels from raw captions agree with labels from another library's lemmas.

    pip install HanTa lemminflect
    python benchmarks/label_agreement.py flickr8k.token.txt.gz

HanTa finds the class of each word, lemminflect its lemma. A caption agrees when the raw text
and the lemmas name the same tags. Prints the share that agrees for each shipped tag list, and the
commonest differences.
"""

from __future__ import annotations

import argparse
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

from taidpt.texts.captions import read_texts
from taidpt.texts.labels import TextLabeler
from taidpt.texts.tags import TagSet

LISTS = ("voc2007", "coco2014", "nuswide")
# First letter of HanTa's word classes (CLAWS5) → lemminflect's.
CLASSES = {"N": "NOUN", "V": "VERB", "A": "ADJ"}


def lemmatised(text: str, tagger: Any) -> str:
    """A caption with every noun, verb and adjective replaced by its lemma."""
    from lemminflect import getLemma

    words = []
    for word, _, word_class in tagger.tag_sent(text.lower().split()):
        upos = CLASSES.get(word_class[0])
        words.append(getLemma(word, upos=upos)[0].lower() if upos and word.isalpha() else word)
    return " ".join(words)


def main() -> None:
    """Parse the command line, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", type=Path, help="A file that `taidpt tune --check` reads.")
    texts = list(read_texts(parser.parse_args().captions))
    from HanTa.HanoverTagger import HanoverTagger

    tagger = HanoverTagger("morphmodel_en.pgz")
    lemmas = [lemmatised(text, tagger) for text in texts]
    for name in LISTS:
        tags = TagSet.load(str(resources.files("taidpt") / "data" / f"{name}.yaml"))
        labeler = TextLabeler(tags)
        different: Counter[str] = Counter()
        agreeing = 0
        for text, lemma in zip(texts, lemmas, strict=True):
            raw, reduced = set(labeler.labels(text)), set(labeler.labels(lemma))
            agreeing += raw == reduced
            different.update(f"{tags.names[tag]} in the text alone" for tag in raw - reduced)
            different.update(f"{tags.names[tag]} in the lemmas alone" for tag in reduced - raw)
        print(f"{name}: {100 * agreeing / len(texts):.2f} % of {len(texts):,} captions agree")
        for difference, count in different.most_common(5):
            print(f"  {count:>5}  {difference}")


if __name__ == "__main__":
    main()

"""Makes every shipped file but the weights: `python -m scripts.toyworld.build_files`.

The weights come from `python -m scripts.toyworld.train`, which reads the merges and the held-out
set written here. Both need the emoji font; all is fixed by seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from scripts.toyworld.build_video import write_video
from scripts.toyworld.captions import tuning_captions
from scripts.toyworld.model import model_config
from scripts.toyworld.tokenizer import load_tokenizer, vocabulary, write_merges
from taidpt.toyworld.drawing.heldout_pictures import write_heldout
from taidpt.toyworld.drawing.things import THINGS

__all__ = ["build_files"]

TUNING_CAPTIONS = 6000

_NOTICE = """\
Files of taidpt's embedded toy world, and where they come from
==============================================================

heldout.zip, demo.mp4, and the scenes that model.safetensors was trained on
  Rendered by taidpt.toyworld from the glyphs of Noto Color Emoji,
  Copyright 2013 Google LLC, licensed under the SIL Open Font License, version 1.1
  (https://openfontlicense.org). The font itself is not included. The licence says that
  documents created with the font do not fall under it.

merges.txt.gz
  A part of the byte-pair merges of OpenAI CLIP, as shipped in open_clip:
  Copyright (c) 2021 OpenAI, MIT licence; open_clip: Copyright (c) 2012-2021 Gabriel Ilharco,
  Mitchell Wortsman, Nicholas Carlini, Rohan Taori, Achal Dave, Vaishaal Shankar, John Miller,
  Hongseok Namkoong, Hannaneh Hajishirzi, Ali Farhadi, Ludwig Schmidt, MIT licence.

model.safetensors, model.json, tags.yaml, tuning_captions.txt, demo_timeline.json
  Made by taidpt, MIT licence. The model knows a toy world of sixty emoji and nothing else.
"""


def _tags_yaml() -> str:
    lines = ["# The toy world's sixty tags; named as COCO names them where COCO does.", "tags:"]
    for thing in THINGS:
        lines.append(f"- name: {thing.name}")
        if thing.synonyms:
            lines.append(f"  synonyms: [{', '.join(thing.synonyms)}]")
    return "\n".join(lines) + "\n"


def build_files(target: Path) -> dict[str, int]:
    """Write every file but the weights into `target`; returns their sizes in bytes.

    Raises:
        MissingDependencyError: the emoji font is not installed.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / "NOTICE.txt").write_text(_NOTICE)
    (target / "tags.yaml").write_text(_tags_yaml())
    captions = "\n".join(tuning_captions(TUNING_CAPTIONS)) + "\n"
    (target / "tuning_captions.txt").write_text(captions)
    write_merges(target / "merges.txt.gz", vocabulary())
    config = model_config(load_tokenizer(target / "merges.txt.gz").vocab_size)
    (target / "model.json").write_text(json.dumps(config, indent=2) + "\n")
    write_heldout(target / "heldout.zip")
    write_video(target / "demo.mp4", target / "demo_timeline.json")
    return {file.name: file.stat().st_size for file in sorted(target.iterdir())}


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=Path, default=Path(__file__).resolve().parent / "files")
    for name, size in build_files(parser.parse_args().files).items():
        print(f"{size:>10,}  {name}")


if __name__ == "__main__":
    main()

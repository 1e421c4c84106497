"""Build every shipped file of the toy world but the weights; run from a checkout.

    python scripts/toyworld/build_files.py

`python scripts/toyworld/train.py` trains the weights from the merges and the held-out set written
here, and `train_text.py` exchanges their text tower. All need the Noto Color Emoji font; seeds fix
every result.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, for `scripts`

from scripts.toyworld.build_video import write_video
from scripts.toyworld.captions import tuning_captions
from scripts.toyworld.drawing.heldout_pictures import choose_scenes, encode_webp
from scripts.toyworld.drawing.things import TAG_NAMES, THINGS
from scripts.toyworld.model import model_config
from scripts.toyworld.tokenizer import load_tokenizer, vocabulary, write_merges
from taidpt.toyworld import assets

__all__ = ["build_files"]

TUNING_CAPTIONS = 6000  # a hundred per tag
_POSITIVES = 20  # pictures of each tag in each split: about 500 in all, 2 MB
# Split of pictures → first number of its scenes' seeds (1 belongs to the model, 3 to the video).
PICTURES = {"heldout": 2, "train": 4, "val": 5}
_EPOCH = (2024, 1, 1, 0, 0, 0)  # one time stamp for all zip members, so that builds are equal

_NOTICE = """\
Files of taidpt's embedded toy world, and where they come from
==============================================================

heldout.zip, train.zip, val.zip, demo.mp4, and the scenes that model.safetensors was trained on
  Rendered by scripts/toyworld from the glyphs of Noto Color Emoji,
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
    """Write every file but the weights into `target`; return the sizes in bytes.

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
    for name, split in PICTURES.items():
        _write_pictures(target / f"{name}.zip", split)
    write_video(target / "demo.mp4", target / "demo_timeline.json")
    return {file.name: file.stat().st_size for file in sorted(target.iterdir())}


def _write_pictures(target: Path, split: int) -> None:
    """Write the zip of one split: its pictures, and their tags in `labels.json`."""
    scenes = choose_scenes(_POSITIVES, split)
    pictures = [
        {
            "file": f"{row:04d}.webp",
            "tags": [TAG_NAMES[thing] for thing in scene.things],
            "background": scene.background.family,
        }
        for row, scene in enumerate(scenes)
    ]
    index = json.dumps({"tags": TAG_NAMES, "pictures": pictures}, indent=1).encode()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(zipfile.ZipInfo("labels.json", _EPOCH), index, zipfile.ZIP_DEFLATED)
        for picture, scene in zip(pictures, scenes, strict=True):
            archive.writestr(zipfile.ZipInfo(str(picture["file"]), _EPOCH), encode_webp(scene))


def main() -> None:
    """Parse the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--files", type=Path, default=assets.FOLDER, help="Folder to write to. [%(default)s]"
    )
    for name, size in build_files(parser.parse_args().files).items():
        print(f"{size:>10,}  {name}")


if __name__ == "__main__":
    main()

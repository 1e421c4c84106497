"""Commands of the middle floor: parse, call the library, print."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["ensemble", "evaluate", "texts"]

FILE = click.Path(path_type=Path)


@click.command("texts")
@click.option("--tags", "tags_path", type=FILE, required=True, help="tags.yaml, or a tag a line.")
@click.option(
    "--texts",
    "text_paths",
    type=FILE,
    required=True,
    multiple=True,
    help="Captions: text, JSONL or COCO JSON, also .gz; may be given several times.",
)
@click.option("--examples", type=click.IntRange(0, 3), default=1, help="Examples a tag.")
def texts(tags_path: Path, text_paths: tuple[Path, ...], examples: int) -> None:
    """Report which tags your texts name, and how often."""
    from taidpt.captions import read_texts
    from taidpt.labels import LabelReport, label_texts
    from taidpt.tags import TagSet

    tags = TagSet.load(tags_path)
    report = LabelReport(tags)
    for path in text_paths:
        for _ in label_texts(read_texts(path), tags, report):
            pass
    for line in report.lines(examples):
        click.echo(line)


@click.command("eval")
@click.option(
    "--scores", "score_path", type=FILE, required=True, help=".npz with targets, global, local."
)
@click.option("--merge-weight", type=float, default=0.5, show_default=True, help="Local share.")
@click.option(
    "--difficult",
    type=click.Choice(["negative", "ignore"]),
    default="negative",
    show_default=True,
    help="What a target of 0 is.",
)
@click.option(
    "--interpolation",
    type=click.Choice(["none", "11point"]),
    default="none",
    show_default=True,
    help="Which average precision.",
)
@click.option(
    "--empty-class",
    type=click.Choice(["skip", "zero"]),
    default="skip",
    show_default=True,
    help="How a class with no positive counts.",
)
@click.option("--per-class", is_flag=True, help="Print each class too.")
@click.option("--json", "json_path", type=FILE, help="Write everything as JSON; - for stdout.")
@click.option("--markdown", "markdown_path", type=FILE, help="Write a table; - for stdout.")
def evaluate(
    score_path: Path,
    merge_weight: float,
    difficult: str,
    interpolation: str,
    empty_class: str,
    per_class: bool,
    json_path: Path | None,
    markdown_path: Path | None,
) -> None:
    """Evaluate saved scores with no model at all."""
    import json

    from taidpt.evaluation import ScoreFile, evaluate_scores
    from taidpt.metrics import MapSettings

    settings = MapSettings(difficult, interpolation, empty_class)
    found = evaluate_scores(ScoreFile.load(score_path), merge_weight, settings)
    outputs = {json_path: json.dumps(found.to_json(), indent=2) + "\n"}
    outputs[markdown_path] = found.markdown()
    if Path("-") not in outputs:
        for line in found.lines(per_class):
            click.echo(line)
    for path, text in outputs.items():
        _write(path, text)


@click.command("ensemble")
@click.argument("text_scores", type=FILE)
@click.argument("image_scores", type=FILE)
@click.option("--rate", type=float, required=True, help="Share of the image-tuned scores, 0 to 1.")
@click.option("--merge-weight", type=float, default=0.5, show_default=True, help="Local share.")
@click.option(
    "--difficult",
    type=click.Choice(["negative", "ignore"]),
    default="negative",
    show_default=True,
    help="What a target of 0 is.",
)
def ensemble(
    text_scores: Path, image_scores: Path, rate: float, merge_weight: float, difficult: str
) -> None:
    """Combine scores of text-tuned and image-tuned prompts, and print the mAP."""
    from taidpt.evaluation import ScoreFile, ensemble_scores
    from taidpt.metrics import MapSettings, mean_average_precision

    text, image = ScoreFile.load(text_scores), ScoreFile.load(image_scores)
    combined = ensemble_scores(text, image, rate, merge_weight)
    found = mean_average_precision(combined, text.targets, MapSettings(difficult))
    click.echo(f"ensemble at rate {rate:g}  mAP {found.value:.3f}")


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    from taidpt.runtime.files import write_atomically

    write_atomically(path, text.encode())

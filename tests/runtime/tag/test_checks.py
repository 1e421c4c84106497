"""`taidpt tag` with another bank, and with an export of the best scores alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from taidpt.runtime.commands import tag
from taidpt.runtime.errors import InputError
from taidpt.runtime.tag.checks import check_sources
from taidpt.runtime.tagger.tagger import Tagger
from tests.runtime.tiny import TinySpec, tiny_bundle

SPEC = TinySpec(thresholds=(1.0,), bank_as="input")
OTHER = dataclasses.replace(SPEC, names=("dog", "forklift"), seed=9)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny_bundle(folder / "swap.taidpt", SPEC)
    tiny_bundle(folder / "top.taidpt", dataclasses.replace(SPEC, top_k=2))
    OTHER.bank().save(folder / "kitchen.bank")
    return folder


def run(*arguments: object) -> str:
    result = CliRunner().invoke(tag, [*map(str, arguments), "--device", "cpu"])
    if result.exception is not None and not isinstance(result.exception, InputError):
        raise result.exception
    return result.output + str(result.exception or "")


def test_a_bank_file_sets_the_tags(home: Path, video_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "tags.jsonl"
    run(home / "swap.taidpt", video_path, "--bank", home / "kitchen.bank", "--jsonl", out)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 100
    assert {entry["name"] for entry in records[0]["tags"]} == {"dog", "forklift"}


def test_what_cannot_change_with_the_tags_is_refused(home: Path, video_path: Path) -> None:
    command = [home / "swap.taidpt", video_path]
    watched = [*command, "--bank", home / "kitchen.bank", "--watch-bank"]
    assert "needs a file to watch: add --bank FILE" in run(*command, "--watch-bank")
    assert "use --jsonl" in run(*watched, "--csv", home / "x.csv")
    assert "cannot read the bank" in run(*command, "--bank", home / "no.bank")


def test_best_scores_give_frames_and_no_events(
    home: Path, video_path: Path, tmp_path: Path
) -> None:
    bundle, out, table = home / "top.taidpt", tmp_path / "tags.jsonl", tmp_path / "tags.csv"
    run(bundle, video_path, "--jsonl", out, "--csv", table)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 100
    for record in records:
        marks = [entry["upper_bound"] for entry in record["tags"]]
        assert marks == [False, False, True, True, True]
        assert len({entry["score"] for entry in record["tags"][1:]}) == 1
    assert len(table.read_text().splitlines()) == 101
    for option in ("--events", "--vtt", "--report"):
        said = run(bundle, video_path, option, tmp_path / "x")
        assert f"--top-k 2, and a timeline ({option}) needs" in said
    assert "take --jsonl FILE or --csv FILE" in run(bundle, video_path)
    with Tagger.load(bundle, device="cpu") as tagger, tagger.stream(video_path) as stream:
        assert not any(moment.events for moment in stream)
        with pytest.raises(InputError, match="a timeline needs every tag's score"):
            stream.timeline()
        with pytest.raises(InputError, match="an event needs every tag's score"):
            stream.machine()
    with (
        Tagger.load(bundle, device="cpu") as tagger,
        pytest.raises(InputError, match=r"has 1 tags, and .* --top-k 2, which needs 2"),
    ):
        tagger.use_bank(OTHER.bank().select(["dog"]))


def test_a_source_given_as_a_file_url_is_not_overwritten(tmp_path: Path) -> None:
    clip = tmp_path / "a b.jsonl"
    url = f"FILE://localhost{tmp_path}/a%20b.jsonl"
    with pytest.raises(InputError, match="--jsonl would overwrite the source"):
        check_sources({"jsonl": str(clip)}, [url], str(tmp_path / "b.taidpt"))
    check_sources({"jsonl": "-"}, ["-"], str(tmp_path / "b.taidpt"))

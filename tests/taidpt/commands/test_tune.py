"""`taidpt tune` as a user runs it, on the shipped model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from taidpt.cli import cli
from taidpt.progress import SilentProgress
from taidpt.prompts.prompts_file import TunedPrompts
from taidpt.runtime.errors import InputError
from taidpt.tuning.settings import TuneSettings
from taidpt.tuning.text_job import TuneJob, checkpoint_path, run_job
from tests.support import REPOSITORY

CAPTIONS = ["a dog and a cat", "two buses near a traffic light", "nothing of note", "A big puppy!"]
TAGS = "- {name: dog, synonyms: [puppy]}\n- cat\n- bus\n- traffic light\n- zebra\n"


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "tags.yaml").write_text(TAGS, "utf-8")
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS * 4), "utf-8")
    return tmp_path


def job(folder: Path, **changes: object) -> TuneJob:
    values = {
        "model": "toyworld",
        "pretrained": "embedded",
        "tags": folder / "tags.yaml",
        "texts": (folder / "captions.txt",),
        "output": folder / "street.safetensors",
        "settings": TuneSettings(epochs=1, batch=64),
    }
    return TuneJob(**{**values, **changes})  # type: ignore[arg-type]


def test_command_tunes_saves_and_reports(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(inputs)
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    command = [
        *("tune", "--model", "toyworld", "--pretrained", "embedded", "--tags", "tags.yaml"),
        *("--texts", "captions.txt", "--epochs", "2", "--batch", "64", "--threads", "1"),
        *("-o", "street.safetensors"),
    ]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert threads == [1]
    assert "16 texts, 12 (75.0 %) name at least one of 5 tags" in result.stderr
    assert "no text names 1 of 5 tags (zebra)" in result.stderr
    assert "street.safetensors: 5 tags, mean loss" in result.stderr
    assert "next: taidpt-export street.safetensors -o street.taidpt" in result.stderr
    prompts = TunedPrompts.load(inputs / "street.safetensors")
    assert prompts.names == ("dog", "cat", "bus", "traffic light", "zebra")
    assert prompts.tags[0].synonyms == ("puppy",)
    assert prompts.provenance["settings"]["epochs"] == 2
    assert prompts.provenance["texts"]["sources"] == ["captions.txt"]
    assert prompts.model["name"] == "toyworld"
    assert not checkpoint_path(inputs / "street.safetensors").exists()


def test_tune_from_names_alone(inputs: Path) -> None:
    prompts = run_job(job(inputs, texts=(), from_names=True), SilentProgress())
    assert prompts.provenance["texts"]["sources"] == ["made from the tags' names"]
    assert prompts.provenance["texts"]["named"] == 4000


def test_bad_input_is_refused_before_the_work(inputs: Path) -> None:
    (inputs / "empty.yaml").write_text("[]", "utf-8")
    (inputs / "none.txt").write_text("nothing\nhere\n", "utf-8")
    (inputs / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (inputs / "folder").mkdir()
    (inputs / "long.yaml").write_text(f"- {'very ' * 70}long\n- dog\n", "utf-8")
    for changes, message in [
        ({"texts": ()}, "give --texts FILE, or --from-names"),
        ({"tags": inputs / "no.yaml"}, "no such file"),
        ({"tags": inputs / "empty.yaml"}, "no tags"),
        ({"texts": (inputs / "none.txt",)}, "none of the 2 texts in .*none.txt names a tag"),
        ({"texts": (inputs / "latin.txt",)}, "latin.txt, line 1: not UTF-8"),
        ({"tags": inputs / "long.yaml"}, "takes 71 tokens"),
        ({"output": inputs / "nowhere" / "x.safetensors"}, "there is no folder .*nowhere"),
        ({"output": inputs / "folder"}, "is a folder; give a file name"),
        ({"model": "RN5O", "pretrained": "openai"}, "^unknown model 'RN5O': did you mean RN50.*$"),
        ({"pretrained": "openai"}, "--model toyworld --pretrained embedded"),
        ({"resume": True, "restart": True}, "exclude each other"),
        ({"resume": True}, "no checkpoint to resume from"),
    ]:
        with pytest.raises(InputError, match=message):
            run_job(job(inputs, **changes), SilentProgress())
    assert not (inputs / "street.safetensors").exists()


def test_unfinished_run_is_not_overwritten(inputs: Path) -> None:
    class Stop(SilentProgress):
        def advance(self, count: int = 1, detail: str = "") -> None:
            if "loss" in detail:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(job(inputs), Stop())
    checkpoint = checkpoint_path(inputs / "street.safetensors")
    assert checkpoint.is_file()
    with pytest.raises(InputError, match="--resume continues it, --restart starts again"):
        run_job(job(inputs), SilentProgress())
    resumed = run_job(job(inputs, resume=True), SilentProgress())
    assert not checkpoint.exists()
    again = run_job(job(inputs, restart=True), SilentProgress())
    assert resumed.thresholds == again.thresholds


def test_help_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['taidpt', 'tune', '--help']\n"
        "from taidpt.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'open_clip', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, capture_output=True)

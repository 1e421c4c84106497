"""The Python front door: `import taidpt` is all that a user needs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import taidpt
from taidpt.cli import cli
from taidpt.runtime.errors import InputError
from tests.support import REPOSITORY

PUBLIC = {
    "Bundle",
    "ClassBank",
    "TaidptError",
    "Tagger",
    "add_engine",
    "calibrate",
    "export_bundle",
    "open_source",
    "read_image",
    "tune",
}
# Options of the commands that have another form in Python, or none.
ELSEWHERE = {
    "tune": {"help", "check", "examples"},  # --check only reports
    # frames are an argument; what only measures or prints has no call
    "calibrate": {
        *("help", "sources", "report", "judge", "dry_run", "json_path", "scores", "merge_weight"),
    },
    # the source and the engine's precision are arguments; an engine's scratch memory is in bytes
    "export": {"help", "source", "engine", "jetpack5", "quiet"},
}


def options_of(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {str(option.name) for option in found.params} - ELSEWHERE[command]


def keywords(*calls: object) -> set[str]:
    return {name for call in calls for name in inspect.signature(call).parameters}  # type: ignore[arg-type]


def test_dir_shows_the_public_names_and_no_imports() -> None:
    names = {name for name in dir(taidpt) if not name.startswith("_")}
    modules = {name for name in names if inspect.ismodule(getattr(taidpt, name))}
    assert names - modules == PUBLIC


def test_listing_the_names_loads_no_torch() -> None:
    code = "import sys, taidpt; dir(taidpt); taidpt.Tagger; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tune_takes_every_option_of_its_command() -> None:
    assert options_of("tune") <= keywords(taidpt.tune)


def test_calibrate_takes_every_option_of_its_command() -> None:
    assert options_of("calibrate") <= keywords(taidpt.calibrate)


def test_export_calls_take_every_option_of_their_command() -> None:
    assert options_of("export") <= keywords(taidpt.export_bundle, taidpt.add_engine)


def test_defaults_are_those_of_the_settings() -> None:
    """`tune` repeats the defaults of the settings, for editors to show."""
    from taidpt.prompts.prompts_file import PromptSettings
    from taidpt.tuning.settings import TuneSettings

    parameters = inspect.signature(taidpt.tune).parameters
    for settings in (TuneSettings(), PromptSettings()):
        for name, value in vars(settings).items():
            if name in parameters:
                assert parameters[name].default == value, name


@pytest.mark.usefixtures("shared_encoders")
def test_the_whole_line_of_the_python_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's own code, with the toy world's model in the place of OpenAI's."""
    page = (REPOSITORY / "docs" / "python.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    code = code.replace('"RN50-quickgelu"', '"toyworld"')
    code = code.replace('"openai"', '"embedded", epochs=1, background=False')  # for speed
    assert "epochs=1" in code
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.txt").write_text("a dog runs\na red car\na bicycle and a dog\n" * 20)
    from PIL import Image

    Image.new("RGB", (320, 240), (90, 120, 60)).save("street.jpg")
    namespace: dict[str, object] = {}
    exec(compile(code, "docs/python.md", "exec"), namespace)
    assert repr(namespace["prompts"]).startswith("TunedPrompts(3 tags")
    assert repr(namespace["exported"]).startswith("ExportResult('street.taidpt', 3 tags, toyworld")
    assert "\n" not in repr(namespace["tagger"])
    assert {tag.name for tag in namespace["result"].tags} == {"car", "bicycle", "dog"}  # type: ignore[attr-defined]


def test_prompts_in_memory_need_an_output() -> None:
    prompts = taidpt.tune(
        ["dog", "car"], captions=["a dog", "a car"] * 10, model="toyworld", pretrained="embedded",
        epochs=1, background=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="give the bundle's output folder"):
        taidpt.export_bundle(prompts)


def test_resuming_needs_an_output() -> None:
    with pytest.raises(InputError, match="need the output"):
        taidpt.tune(["dog"], captions=["a dog"], resume=True, model="toyworld", pretrained="random")


def test_no_texts_at_all_is_one_line() -> None:
    with pytest.raises(InputError, match="no texts"):
        taidpt.tune(["dog"], model="toyworld", pretrained="embedded")

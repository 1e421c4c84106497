"""Run a Dockerfile's steps without Docker: python scripts/dockerfile_steps.py docker/x86.Dockerfile

Paths of the image lie below a new folder, and commands have an empty environment, so that nothing
of this checkout's environment is found by chance. Steps that change the base image itself (packages
of the system, users) are left out and named: this is no replacement for a build. The health check
and the entry point run at the end.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Folders of the image that the steps write to.
PLACES = ("/opt/", "/src", "/data")
# Commands that change the base image.
SYSTEM = ("apt-get", "useradd")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Step:
    """One instruction: its word in capitals, and the rest on one line."""

    word: str
    text: str


def steps(dockerfile: str) -> Iterator[Step]:
    """The instructions of a Dockerfile's text."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, text = line.strip().partition(" ")
        if word:
            yield Step(word.upper(), re.sub(r"\s+", " ", text.strip()))


class Image:
    """A folder that stands for an image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.variables = {"PATH": SYSTEM_PATH, "HOME": str(root / "home")}
        self.left_out: list[str] = []
        (root / "data").mkdir(parents=True)
        (root / "home").mkdir()

    def run(self, step: Step) -> None:
        """Carry out one step."""
        if step.word == "ARG":
            name, _, value = step.text.partition("=")
            self.variables.setdefault(name, value)
        elif step.word == "ENV":
            name, _, value = step.text.partition("=")
            self.variables[name] = self._inside(self._filled(value))
        elif step.word == "COPY":
            *sources, target = shlex.split(step.text)
            self._copy(sources, self._inside(target))
        elif step.word == "RUN" and not step.text.startswith(SYSTEM):
            self.shell(step.text)
        elif step.word == "HEALTHCHECK":
            self.shell(shlex.join(json.loads(step.text.partition("CMD ")[2])))
        elif step.word == "ENTRYPOINT":
            self.shell(shlex.join([*json.loads(step.text), "--version"]))
        elif step.word in ("RUN", "FROM", "USER"):
            self.left_out.append(f"{step.word} {step.text}")

    def shell(self, command: str) -> None:
        """Run a command in the image's folder for data; a failure ends the program."""
        print(f"$ {command}", flush=True)
        line = self._inside(command)
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=self.root / "data", env=self.variables, check=False
        )
        if done.returncode:
            sys.exit(f"exit code {done.returncode}: {command}")

    def _copy(self, sources: list[str], target: str) -> None:
        for source in sources:
            place, given = Path(target), ROOT / source
            if given.is_dir():  # links inside stay links, as in Docker
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(given, place, symlinks=True, ignore=ignored, dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(given, place)

    def _inside(self, text: str) -> str:
        for place in PLACES:
            text = re.sub(rf"(?<![\w/.]){place}", f"{self.root}{place}", text)
        return text

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda match: self.variables.get(match[1], ""), text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dockerfile", type=Path)
    dockerfile = parser.parse_args().dockerfile
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder).resolve() / "image")
        for step in steps(dockerfile.read_text("utf-8")):
            image.run(step)
    print("left out, as they change the base image:", *image.left_out, sep="\n  ")


if __name__ == "__main__":
    main()

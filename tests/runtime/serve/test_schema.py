"""The OpenAPI document: schemathesis asks the running server whatever the document allows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.runtime.serve.server import running
from tests.support import require

MAIN = "from schemathesis.cli import schemathesis; schemathesis()"
TOKEN = "a-token-of-enough-letters"
# Answers without an end, and names, which start a text tower: tested elsewhere.
LEFT_OUT = ("live", "live-all", "stream", "add-tags", "prepare")
# Uploads of random bytes are valid by the document, and are answered with 422.
CHECKS_LEFT_OUT = "positive_data_acceptance"


def test_every_operation_keeps_to_its_document(
    swappable: Path, video_path: Path, tmp_path: Path
) -> None:
    found = importlib.util.find_spec("schemathesis") is not None
    require("schemathesis", found, "pip install schemathesis")
    with running(swappable, tmp_path / "data", str(video_path), token=TOKEN) as server:
        command = [sys.executable, "-c", MAIN, "run", f"{server.url}/v1/openapi.json"]
        command += ["--header", f"Authorization: Bearer {TOKEN}", "--seed", "1"]
        command += ["--checks", "all", "--exclude-checks", CHECKS_LEFT_OUT, "--max-examples", "5"]
        command += ["--phases", "examples,coverage,fuzzing", "--warnings", "off", "--no-color"]
        command += [part for name in LEFT_OUT for part in ("--exclude-operation-id", name)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert server.ask("/v1/health", Authorization=f"Bearer {TOKEN}").json["ready"]
